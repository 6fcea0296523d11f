//! Values stored once and named by a small number, for as long as somebody uses them.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// The number of an interned value. Reused once nobody uses the value any more.
pub(super) type Id = u32;

/// The id of a place in a list. Memory ends long before the numbers do.
pub(super) fn id(place: usize) -> Id {
    Id::try_from(place).unwrap_or(Id::MAX)
}

/// Keys with a value each, counted by use: a cluster's names come and go for years, and an
/// interner that only grows would keep them all.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    ids: HashMap<K, Id>,
    entries: Vec<Option<Entry<K, V>>>,
    free: Vec<Id>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    uses: u32,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            ids: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, V> Table<K, V> {
    /// The id of a key in use, without using it.
    pub(super) fn find<Q>(&self, key: &Q) -> Option<Id>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.ids.get(key).copied()
    }

    /// Uses a key once more if it is in use.
    pub(super) fn reuse<Q>(&mut self, key: &Q) -> Option<Id>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let id = self.find(key)?;
        self.retain(id);
        Some(id)
    }

    /// Uses a key that is in use once more, by its id.
    pub(super) fn retain(&mut self, id: Id) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize) {
            entry.uses += 1;
        }
    }

    /// Uses a key for the first time.
    pub(super) fn insert(&mut self, key: K, value: V) -> Id {
        debug_assert!(!self.ids.contains_key(&key));
        let entry = Some(Entry {
            key: key.clone(),
            value,
            uses: 1,
        });
        let id = if let Some(id) = self.free.pop() {
            self.entries[id as usize] = entry;
            id
        } else {
            let id = id(self.entries.len());
            self.entries.push(entry);
            id
        };
        self.ids.insert(key, id);
        id
    }

    /// Ends one use. The last one gives key and value back, and the id may be reused.
    pub(super) fn release(&mut self, id: Id) -> Option<(K, V)> {
        let slot = self.entries.get_mut(id as usize)?;
        let entry = slot.as_mut()?;
        entry.uses -= 1;
        if entry.uses > 0 {
            return None;
        }
        let entry = slot.take()?;
        self.ids.remove(&entry.key);
        self.free.push(id);
        Some((entry.key, entry.value))
    }

    /// The key of an id in use.
    pub(super) fn key(&self, id: Id) -> Option<&K> {
        Some(&self.entries.get(id as usize)?.as_ref()?.key)
    }

    /// The value of an id in use.
    pub(super) fn get(&self, id: Id) -> Option<&V> {
        Some(&self.entries.get(id as usize)?.as_ref()?.value)
    }

    /// The value of an id in use, to change it.
    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut V> {
        Some(&mut self.entries.get_mut(id as usize)?.as_mut()?.value)
    }

    /// Every key in use with its id and value, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &K, &V)> {
        self.ids
            .iter()
            .filter_map(|(key, id)| Some((*id, key, self.get(*id)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn a_key_lives_as_long_as_it_is_used() {
        let mut table = Table::<String, u8>::default();
        let id = table.insert("a".into(), 7);
        assert_eq!(table.reuse("a"), Some(id));
        assert_eq!(table.release(id), None);
        assert_eq!(table.get(id), Some(&7));
        assert_eq!(table.release(id), Some(("a".into(), 7)));
        assert_eq!(table.find("a"), None);
        assert_eq!(table.release(id), None);
    }

    #[test]
    fn names_that_come_and_go_do_not_pile_up() {
        let mut table = Table::<String, ()>::default();
        for n in 0..10_000 {
            let id = table.insert(n.to_string(), ());
            table.release(id);
        }
        assert_eq!(table.ids.len(), 0);
        assert_eq!(table.entries.len(), 1);
    }
}

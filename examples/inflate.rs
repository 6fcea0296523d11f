//! The yardstick of `make bench-files`: inflates gzip files with libdeflate on one thread, and does
//! nothing else with them. What reading costs beyond this is what the reader costs.

use std::{env, fs, io, path::PathBuf};

use libdeflater::Decompressor;

fn main() -> io::Result<()> {
    let mut paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let mut inflate = Decompressor::new();
    let mut text = Vec::new();
    let mut total = 0;
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
            continue;
        }
        let file = fs::read(&path)?;
        // The last field of a gzip member is the length of its text.
        let length = file
            .last_chunk()
            .map_or(0, |field| u32::from_le_bytes(*field));
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if text.len() < length {
            text.resize(length, 0);
        }
        let inflated = inflate.gzip_decompress(&file, &mut text);
        total +=
            inflated.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    }
    println!("{total} bytes");
    Ok(())
}

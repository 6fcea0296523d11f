//! A pod's controller → the workload that people know it by.

use jiff::Timestamp;

/// The owner that controls a pod, as its `ownerReferences` name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Controller<'a> {
    /// Kind, for example `ReplicaSet`.
    pub(super) kind: &'a str,
    /// Name.
    pub(super) name: &'a str,
}

/// Kind and name of the workload that a pod belongs to.
///
/// Deployments and `CronJobs` do not own pods: they own what owns the pods, and both name that after
/// themselves. `template_hash` is the pod's label `pod-template-hash`, `created` the pod's
/// `creationTimestamp`.
pub(super) fn of<'a>(
    pod: &'a str,
    controller: Option<Controller<'a>>,
    template_hash: Option<&str>,
    created: Timestamp,
) -> (&'a str, &'a str) {
    let Some(Controller { kind, name }) = controller else {
        return ("Pod", pod);
    };
    match kind {
        "ReplicaSet" => match template_hash.and_then(|hash| prefix(name, hash)) {
            Some(deployment) => ("Deployment", deployment),
            None => (kind, name),
        },
        "Job" => match cron_job(name, created) {
            Some(cron_job) => ("CronJob", cron_job),
            None => (kind, name),
        },
        _ => (kind, name),
    }
}

/// What stands before `-<suffix>`.
fn prefix<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let prefix = name.strip_suffix(suffix)?.strip_suffix('-')?;
    (!prefix.is_empty() && !suffix.is_empty()).then_some(prefix)
}

/// The `CronJob` of a Job that is named after the minute it was due: `<name>-<minutes since 1970>`.
///
/// Any Job may end in eight digits (a date, for example), so they count only when that minute lies
/// within a day before the pod was made.
fn cron_job(job: &str, created: Timestamp) -> Option<&str> {
    const DAY: i64 = 24 * 60 * 60;
    let (name, digits) = job.rsplit_once('-')?;
    if name.is_empty() || digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let due = digits.parse::<i64>().ok()? * 60;
    let age = created.as_second() - due;
    (0..=DAY).contains(&age).then_some(name)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Controller, of};

    fn workload(kind: &str, name: &str, hash: Option<&str>, created: &str) -> (String, String) {
        let created: Timestamp = created.parse().unwrap();
        let (kind, name) = of("web-1", Some(Controller { kind, name }), hash, created);
        (kind.to_owned(), name.to_owned())
    }

    fn pair(kind: &str, name: &str) -> (String, String) {
        (kind.to_owned(), name.to_owned())
    }

    const NOON: &str = "2026-11-22T12:00:00Z";
    /// The minute of `NOON`.
    const DUE: i64 = 29_922_480;

    #[test]
    fn a_replica_set_s_deployment_is_found_by_the_pod_template_hash() {
        assert_eq!(
            workload("ReplicaSet", "web-6d4cf56db6", Some("6d4cf56db6"), NOON),
            pair("Deployment", "web")
        );
    }

    #[test]
    fn a_replica_set_of_its_own_stays_a_replica_set() {
        for hash in [None, Some("other"), Some("")] {
            assert_eq!(
                workload("ReplicaSet", "web-6d4cf56db6", hash, NOON),
                pair("ReplicaSet", "web-6d4cf56db6")
            );
        }
        assert_eq!(
            workload("ReplicaSet", "-abc", Some("abc"), NOON),
            pair("ReplicaSet", "-abc")
        );
        assert_eq!(
            workload("ReplicaSet", "webabc", Some("abc"), NOON),
            pair("ReplicaSet", "webabc")
        );
    }

    #[test]
    fn a_job_named_after_the_minute_it_was_due_belongs_to_its_cron_job() {
        for due in [DUE, DUE - 1, DUE - 24 * 60] {
            assert_eq!(
                workload("Job", &format!("report-{due}"), None, NOON),
                pair("CronJob", "report")
            );
        }
    }

    #[test]
    fn a_job_whose_digits_are_no_minute_of_the_last_day_stays_a_job() {
        for name in [
            format!("report-{}", DUE + 1),
            format!("report-{}", DUE - 24 * 60 - 1),
            "report-20261122".to_owned(),
            "report-2975616".to_owned(),
            "report-029756160".to_owned(),
            "report-2975616a".to_owned(),
            format!("-{DUE}"),
            "report".to_owned(),
        ] {
            assert_eq!(workload("Job", &name, None, NOON), pair("Job", &name));
        }
    }

    #[test]
    fn any_other_controller_is_the_workload_itself() {
        for kind in ["DaemonSet", "StatefulSet", "Rollout", "Node"] {
            assert_eq!(workload(kind, "x", Some("x"), NOON), pair(kind, "x"));
        }
    }

    #[test]
    fn a_pod_without_a_controller_is_its_own_workload() {
        assert_eq!(
            of("web-1", None, None, NOON.parse().unwrap()),
            ("Pod", "web-1")
        );
    }
}

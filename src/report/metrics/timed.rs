//! What is counted and timed as it happens, since no state that could be looked at later tells it:
//! requests to the Kubernetes API, what the ledger is asked to do, passes over the policies.

use std::time::Duration;

use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry, core::Collector,
};

use crate::ledger::{LedgerError, Operation};

/// Upper bounds in seconds, from what a healthy server needs to what a person would call hanging.
const ANSWERS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// The same for what goes through many repositories.
const PASSES: [f64; 9] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

/// Cheap to clone; the clones count together.
#[derive(Clone)]
pub(super) struct Timed {
    api_requests: CounterVec,
    api_durations: HistogramVec,
    reconciles: CounterVec,
    reconcile_durations: Histogram,
    assessment_durations: Histogram,
    ledger_durations: HistogramVec,
    ledger_errors: CounterVec,
}

impl Timed {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let timed = Self {
            api_requests: CounterVec::new(
                Opts::new(
                    "ecr_audit_api_requests_total",
                    "Requests to the Kubernetes API by verb, resource and status code; `none` where no answer came.",
                ),
                &["verb", "resource", "code"],
            )?,
            api_durations: HistogramVec::new(
                HistogramOpts::new(
                    "ecr_audit_api_request_duration_seconds",
                    "Time until the Kubernetes API answered, or was given up; of a watch, until it began.",
                )
                .buckets(ANSWERS.into()),
                &["verb", "resource"],
            )?,
            reconciles: CounterVec::new(
                Opts::new(
                    "ecr_audit_reconciles_total",
                    "Passes over all policies; `failed` ones are made again.",
                ),
                &["result"],
            )?,
            reconcile_durations: Histogram::with_opts(
                HistogramOpts::new(
                    "ecr_audit_reconcile_duration_seconds",
                    "Time that a pass took.",
                )
                .buckets(PASSES.into()),
            )?,
            assessment_durations: Histogram::with_opts(
                HistogramOpts::new(
                    "ecr_audit_assessment_duration_seconds",
                    "Time that the assessments of a pass took, reading the ledger included.",
                )
                .buckets(PASSES.into()),
            )?,
            ledger_durations: HistogramVec::new(
                HistogramOpts::new(
                    "ecr_audit_ledger_operation_duration_seconds",
                    "Time that the ledger took: to append a page, to answer a query, to open, for other writes.",
                )
                .buckets(ANSWERS.into()),
                &["operation"],
            )?,
            ledger_errors: CounterVec::new(
                Opts::new(
                    "ecr_audit_ledger_errors_total",
                    "What the ledger failed to do, by reason.",
                ),
                &["operation", "reason"],
            )?,
        };
        // Known from the start, and so never absent.
        for operation in Operation::ALL {
            timed
                .ledger_durations
                .with_label_values(&[operation.as_str()]);
        }
        for result in ["ok", "failed"] {
            timed.reconciles.with_label_values(&[result]);
        }
        let Self {
            api_requests,
            api_durations,
            reconciles,
            reconcile_durations,
            assessment_durations,
            ledger_durations,
            ledger_errors,
        } = timed.clone();
        let collectors: [Box<dyn Collector>; 7] = [
            Box::new(api_requests),
            Box::new(api_durations),
            Box::new(reconciles),
            Box::new(reconcile_durations),
            Box::new(assessment_durations),
            Box::new(ledger_durations),
            Box::new(ledger_errors),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(timed)
    }

    pub(super) fn api_request(
        &self,
        verb: &'static str,
        resource: &'static str,
        code: &'static str,
        took: Duration,
    ) {
        self.api_requests
            .with_label_values(&[verb, resource, code])
            .inc();
        self.api_durations
            .with_label_values(&[verb, resource])
            .observe(took.as_secs_f64());
    }

    pub(super) fn reconcile(&self, result: &'static str, took: Duration) {
        self.reconciles.with_label_values(&[result]).inc();
        self.reconcile_durations.observe(took.as_secs_f64());
    }

    pub(super) fn assessments(&self, took: Duration) {
        self.assessment_durations.observe(took.as_secs_f64());
    }

    pub(super) fn ledger(&self, operation: Operation, took: Duration, error: Option<&LedgerError>) {
        self.ledger_durations
            .with_label_values(&[operation.as_str()])
            .observe(took.as_secs_f64());
        if let Some(error) = error {
            self.ledger_errors
                .with_label_values(&[operation.as_str(), error.category()])
                .inc();
        }
    }
}

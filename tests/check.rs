//! `ecr-audit check`, the real command on small inputs: forms of input, reports, exit codes, errors.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails is the test that fails"
)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// Where the inputs are; tests run there, so that paths in reports are short.
fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/check")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecr-audit"));
    command.arg("check").args(args).current_dir(data());
    // No cluster is asked by accident.
    command.env("KUBECONFIG", "/dev/null");
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().expect("run")
}

fn run_with_stdin(args: &[&str], input: &[u8]) -> Output {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let mut stdin = child.stdin.take().expect("piped");
    // The command may end before it has read everything.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("output")
}

const NOW: [&str; 2] = ["--now", "2026-11-22T00:00:00Z"];
const CLUSTER: [&str; 4] = ["--pods", "pods.json", "--nodes", "nodes.json"];

/// Arguments for the story with its policy.
fn story<'a>(events: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--policy", "policy.yaml"];
    args.extend(CLUSTER);
    args.extend(NOW);
    args.extend(more);
    args.push("--events");
    args.extend(events);
    args
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

/// What must not depend on how the same events were given.
fn judgement(output: &Output) -> Value {
    let report = report(output);
    json!({"images": report["images"], "findings": report["findings"]})
}

fn records(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(data().join(file)).expect(file);
    if file == "story/lines.jsonl" {
        let lines = text.lines();
        return lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
    }
    let document: Value = serde_json::from_str(&text).expect("JSON");
    document["Records"].as_array().expect("Records").clone()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn the_story_as_a_table_for_people() {
    let output = run(&story(&["story"], &[]));
    insta::assert_snapshot!(text(&output.stdout));
    assert_eq!(code(&output), 1);
    let longest = text(&output.stdout)
        .lines()
        .map(|line| line.chars().count());
    assert!(longest.max() <= Some(120));
}

#[test]
fn the_story_as_json_for_scripts() {
    let output = run(&story(&["story"], &["--output", "json"]));
    insta::assert_snapshot!(text(&output.stdout));
    assert_eq!(code(&output), 1);
    insta::assert_snapshot!("notes_of_the_story", text(&output.stderr));
}

#[test]
fn the_documented_records_without_a_policy() {
    let output = run(&[
        "--pods",
        "documented-pods.json",
        "--events",
        "documented",
        "--now",
        "2020-03-13T00:00:00Z",
    ]);
    insta::assert_snapshot!(text(&output.stdout));
    assert_eq!(code(&output), 1);
}

#[test]
fn every_form_of_input_gives_the_same_judgement() {
    let folder = tempfile::tempdir().expect("folder");
    let whole = judgement(&run(&story(&["story"], &["--output", "json"])));
    let mut all = records("story/trail.json");
    all.extend(records("story/lines.jsonl"));
    let lookup: Value =
        serde_json::from_slice(&fs::read(data().join("story/lookup-events.json")).expect("file"))
            .expect("JSON");
    for event in lookup["Events"].as_array().expect("Events") {
        let record = event["CloudTrailEvent"].as_str().expect("text");
        all.push(serde_json::from_str(record).expect("JSON"));
    }
    let envelope = |record: &Value| {
        let service = record["eventType"] == "AwsServiceEvent";
        json!({
            "version": "0", "id": "12345678-1234-1234-1234-123456789012", "source": "aws.ecr",
            "detail-type": if service { "AWS Service Event via CloudTrail" } else { "AWS API Call via CloudTrail" },
            "account": "111122223333", "region": "us-east-1", "resources": [], "detail": record,
        })
    };
    let lines = |of: &dyn Fn(&Value) -> Value| {
        all.iter()
            .map(|record| of(record).to_string() + "\n")
            .collect::<String>()
    };
    let forms = [
        ("trail", json!({"Records": all}).to_string()),
        ("array", Value::from(all.clone()).to_string()),
        ("lines", lines(&Clone::clone)),
        ("EventBridge", lines(&envelope)),
        (
            "lookup-events",
            json!({"Events": all.iter().map(|record| json!({"CloudTrailEvent": record.to_string()})).collect::<Vec<_>>()})
                .to_string(),
        ),
    ];
    for (form, text) in forms {
        // Neither name says what is in the file.
        let plain = folder.path().join("plain.gz");
        fs::write(&plain, &text).expect("write");
        let zipped = folder.path().join("zipped.json");
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        fs::write(&zipped, [gzip(first), gzip(second)].concat()).expect("write");
        for path in [&plain, &zipped] {
            let path = path.to_str().expect("UTF-8");
            let output = run(&story(&[path], &["--output", "json"]));
            assert_eq!(judgement(&output), whole, "{form} in {path}");
            assert_eq!(report(&output)["input"]["errors"], json!([]), "{form}");
        }
        let output = run_with_stdin(&story(&["-"], &["--output", "json"]), text.as_bytes());
        assert_eq!(judgement(&output), whole, "{form} on standard input");
    }
}

#[test]
fn the_number_of_threads_and_repeated_files_change_nothing_in_the_judgement() {
    let whole = judgement(&run(&story(&["story"], &["--output", "json"])));
    for threads in ["1", "2", "7"] {
        let args = story(
            &["story", "story/lines.jsonl", "story"],
            &["--output", "json", "--threads", threads],
        );
        let output = run(&args);
        assert_eq!(judgement(&output), whole);
        // 11 records of ECR, one of them twice; then all of them again, and three once more.
        let input = &report(&output)["input"];
        assert_eq!(input["ecrRecords"], 25);
        assert_eq!(input["duplicates"], 15);
    }
}

#[test]
fn a_pod_list_on_standard_input_and_events_from_files() {
    let pods = fs::read(data().join("pods.json")).expect("pods");
    let mut args = vec![
        "--policy",
        "policy.yaml",
        "--pods",
        "-",
        "--nodes",
        "nodes.json",
    ];
    args.extend(NOW);
    args.extend(["--output", "json", "--events", "story"]);
    let output = run_with_stdin(&args, &pods);
    assert_eq!(code(&output), 1);
    assert_eq!(
        judgement(&output),
        judgement(&run(&story(&["story"], &["--output", "json"])))
    );
}

#[test]
fn standard_input_is_read_once_only() {
    let args = ["--pods", "-", "--events", "-"];
    let output = run_with_stdin(&args, b"");
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("standard input (-) can be read once only"));
}

#[test]
fn without_findings_the_code_is_0_and_unknown_images_fail_only_on_demand() {
    let args = ["--pods", "pods.json", "--events", "story/lines.jsonl"];
    let output = run(&args);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("no findings"));
    let output = run(&[&args[..], &["--fail-on-unknown"]].concat());
    assert_eq!(code(&output), 2);
}

#[test]
fn excepted_findings_are_shown_and_do_not_fail() {
    let folder = tempfile::tempdir().expect("folder");
    let policy = folder.path().join("policy.yaml");
    let head = fs::read_to_string(data().join("policy.yaml")).expect("policy");
    let with_all_excepted =
        format!("{head}    - {{owner: everybody, reason: holidays, until: \"2026-11-22\"}}\n");
    fs::write(&policy, with_all_excepted).expect("write");
    let policy = policy.to_str().expect("UTF-8");
    let mut args = vec!["--policy", policy];
    args.extend(CLUSTER);
    args.extend(["--output", "json", "--events", "story"]);
    let output = run(&[&args[..], &["--now", "2026-11-22T23:59:59Z"]].concat());
    assert_eq!(code(&output), 0);
    let findings = report(&output)["findings"].clone();
    let findings = findings.as_array().expect("list");
    assert_eq!(findings.len(), 4);
    assert!(findings.iter().all(|finding| finding["excepted"] == true));

    let output = run(&[&args[..], &["--now", "2026-11-23T00:00:00Z"]].concat());
    assert_eq!(code(&output), 1, "the day after, it counts again");
    assert!(
        text(&output.stderr).contains("the exception of everybody (holidays) has expired"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_fault_in_the_input_is_named_and_the_rest_is_judged() {
    let folder = tempfile::tempdir().expect("folder");
    let whole = gzip(&fs::read(data().join("story/trail.json")).expect("file"));
    fs::write(folder.path().join("cut.json.gz"), &whole[..whole.len() / 2]).expect("write");
    fs::write(folder.path().join("hello.txt"), "hello").expect("write");
    let path = folder.path().to_str().expect("UTF-8");
    let lone = ["--output", "json", "--pods", "pods.json", "--events"];

    let output = run(&[&lone[..], &[path]].concat());
    assert_eq!(code(&output), 2, "faults, but no findings");
    let errors = report(&output)["input"]["errors"].to_string();
    for name in ["cut.json.gz", "hello.txt"] {
        assert!(errors.contains(name), "{errors}");
        assert!(
            text(&output.stderr).contains(name),
            "{}",
            text(&output.stderr)
        );
    }

    let output = run(&[&lone[..], &[path, "story"]].concat());
    assert_eq!(code(&output), 1, "findings come first");

    let output = run(&[&lone[..], &["no-such-file"]].concat());
    assert_eq!(code(&output), 2);
    assert_eq!(
        report(&output)["input"]["errors"][0]["path"],
        "no-such-file"
    );
}

#[test]
fn a_record_that_cannot_be_decoded_is_counted_and_named() {
    let good = records("story/lines.jsonl");
    let mut bad = good[0].clone();
    bad["eventTime"] = json!("yesterday");
    let input = format!("{}\n{bad}\n{}\n", good[1], good[2]);
    let args = ["--output", "json", "--pods", "pods.json", "--events", "-"];
    let output = run_with_stdin(&args, input.as_bytes());
    assert_eq!(code(&output), 2);
    assert_eq!(report(&output)["input"]["undecodable"], 1);
    assert_eq!(report(&output)["input"]["ecrRecords"], 3);
    let named = "-: record 1: PutImage: eventTime is missing or malformed";
    assert!(
        text(&output.stderr).contains(named),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_others_chose_cannot_drive_the_terminal() {
    let mut record = records("story/lines.jsonl").remove(1);
    record["userIdentity"]["arn"] = json!("arn:aws:iam::111122223333:user/\u{1b}[2J\u{202e}x");
    let args = story(&["-"], &[]);
    let output = run_with_stdin(&args, record.to_string().as_bytes());
    assert_eq!(code(&output), 1);
    assert!(!output.stdout.contains(&0x1b));
    assert!(
        text(&output.stdout).contains(r"\u{1b}[2J\u{202e}x"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_policy_that_expects_nodes_needs_to_know_them() {
    let args = [
        "--policy",
        "policy.yaml",
        "--pods",
        "pods.json",
        "--events",
        "story",
    ];
    let output = run(&args);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("--nodes is missing"));
    // Without a policy no pull is judged, so nobody asks.
    let output = run(&args[2..]);
    assert_eq!(code(&output), 1);
}

#[test]
fn a_policy_file_is_refused_with_line_field_and_what_was_expected() {
    let head = "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\nmetadata: {name: x}\n";
    let wrong = [
        (
            "spec:\n  lookbackDays: soon\n",
            "line 5: spec.lookbackDays: expected a whole number",
        ),
        (
            "spec:\n  expectedPuller: {}\n",
            "line 5: spec.expectedPuller: unknown field",
        ),
        (
            "spec:\n  expectedPullers:\n    accounts: [444455556666]\n",
            "line 6: spec.expectedPullers.accounts[0]: expected a text: write \"444455556666\", with quotes",
        ),
        (
            "spec:\n  exceptions:\n    - owner: a\n      reason: b\n      until: soon\n",
            "line 8: spec.exceptions[0].until: expected a date",
        ),
        ("spec: [\n", "line 4"),
        (
            "spec:\n  exceptions:\n    - {owner: a, reason: b, until: 2027-01-01, types: []}\n",
            "line 6: spec.exceptions[0].types: expected at least one entry",
        ),
        (
            "spec:\n  images: {registryIDs: []}\n",
            "line 5: spec.images.registryIDs: expected at least one entry",
        ),
        (
            "spec:\n  workloads:\n    namespaceSelector:\n      matchExpressions:\n        - {key: team, operator: Foo}\n",
            "line 8: spec.workloads.namespaceSelector.matchExpressions[0].operator: expected In, NotIn",
        ),
        (
            "spec:\n  workloads:\n    namespaceSelector:\n      matchExpressions: [{operator: Exists}]\n",
            "line 7: spec.workloads.namespaceSelector.matchExpressions[0].key: expected the key",
        ),
        (
            "spec: {workloads: {namespaceSelector: {matchExpressions: [{key: a, operator: In, values: []}]}}}\n",
            "matchExpressions[0].values: expected at least one value for In",
        ),
        (
            "spec: {workloads: {namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}}\n",
            "matchExpressions[0].values: expected no values for Exists",
        ),
        (
            "spec: {workloads: {namespaceSelector: {matchLabels: {'a b!': c}}}}\n",
            "namespaceSelector.matchLabels.a b!: expected the key of a label",
        ),
        (
            "spec: {workloads: {namespaceSelector: {matchLabels: {Example.com/a: c}}}}\n",
            "expected the key of a label",
        ),
        (
            "spec: {workloads: {namespaceSelector: {matchLabels: {example.com/a: -c}}}}\n",
            "expected the value of a label",
        ),
    ];
    for (rest, expected) in wrong {
        let policy = format!("{head}{rest}");
        let args = ["--policy", "-", "--pods", "pods.json", "--events", "story"];
        let output = run_with_stdin(&args, policy.as_bytes());
        assert_eq!(code(&output), 2);
        assert!(output.stdout.is_empty());
        assert!(
            text(&output.stderr).contains(expected),
            "{policy}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_pods_file_is_refused_with_line_and_field() {
    let pods = "{\"kind\": \"List\", \"items\": [\n{\"kind\": \"Pod\", \"metadata\": 5}]}";
    let output = run_with_stdin(&["--pods", "-", "--events", "story"], pods.as_bytes());
    assert_eq!(code(&output), 2);
    let message = text(&output.stderr);
    assert!(
        message.contains("-:2:") && message.contains("items[0]"),
        "{message}"
    );
}

#[test]
fn namespaces_and_registries_narrow_what_is_judged() {
    let judge = |spec: &str, pods: &str| {
        let policy = format!(
            "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\nmetadata: {{name: x}}\nspec: {spec}\n"
        );
        let args = [
            "--policy", "-", "--output", "json", "--events", "story", "--pods", pods,
        ];
        run_with_stdin(&[&args[..], &NOW].concat(), policy.as_bytes())
    };
    let images = |output: &Output| report(output)["images"].as_array().map(Vec::len);
    let other = judge("{images: {registryIDs: [\"999999999999\"]}}", "pods.json");
    assert_eq!((code(&other), images(&other)), (0, Some(0)));

    let by_name =
        "{workloads: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: batch}}}}";
    let batch = judge(by_name, "pods.json");
    assert_eq!((code(&batch), images(&batch)), (0, Some(1)));

    let by_team = "{workloads: {namespaceSelector: {matchLabels: {team: shop}}}}";
    let unlabelled = judge(by_team, "pods.json");
    assert_eq!(code(&unlabelled), 2);
    let message = text(&unlabelled.stderr);
    assert!(
        message.contains("holds no labels of namespaces batch, shop"),
        "{message}"
    );

    let folder = tempfile::tempdir().expect("folder");
    let both = folder.path().join("both.json");
    let parts = ["pods.json", "namespaces.json"];
    let parts = parts.map(|name| fs::read_to_string(data().join(name)).expect(name));
    fs::write(&both, parts.concat()).expect("write");
    let shop = judge(by_team, both.to_str().expect("UTF-8"));
    assert_eq!((code(&shop), images(&shop)), (1, Some(2)));
}

#[test]
fn events_after_the_time_of_the_judgement_judge_nothing() {
    let mut args = vec!["--output", "json"];
    args.extend(CLUSTER);
    args.extend(["--now", "2026-11-20T03:00:11Z", "--events", "story"]);
    let before = run(&args);
    assert_eq!(code(&before), 0, "one second before the run");
    assert_eq!(
        report(&before)["input"]["ecrRecords"],
        11,
        "but it was read"
    );
    args[7] = "2026-11-20T03:00:12Z";
    assert_eq!(args[6], "--now");
    assert_eq!(code(&run(&args)), 1);
}

#[test]
fn the_guide_shows_what_the_command_prints() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check.md");
    let guide = fs::read_to_string(guide).expect("docs/check.md");
    let examples: Vec<&str> = guide
        .split("```console\n$ ecr-audit ")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let (line, shown) = example.split_once('\n').expect("a command and its output");
        let output = Command::new(env!("CARGO_BIN_EXE_ecr-audit"))
            .args(line.split_whitespace())
            .current_dir(data())
            .output()
            .expect("run");
        assert_eq!(
            text(&output.stdout),
            shown,
            "{line}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn what_ecr_tells_of_an_image_that_came_back_is_evidence_and_counts_as_skipped() {
    let folder = tempfile::tempdir().expect("folder");
    let before = report(&run(&story(&["story"], &["--output", "json"])));
    let findings = before["findings"].as_array().expect("findings");
    let expired = findings
        .iter()
        .find(|finding| finding["type"] == "ImageExpired");
    let image = &expired.expect("an expired image")["image"];
    let told = json!({
        "version": "0", "id": "13cde686-328b-6117-af20-0e5566167482", "source": "aws.ecr",
        "detail-type": "ECR Replication Action", "account": image["account"],
        "region": image["region"], "time": "2026-11-21T00:00:00Z", "resources": [],
        "detail": {"result": "SUCCESS", "action-type": "REPLICATE", "image-tag": "v1",
                   "repository-name": image["repository"], "image-digest": image["digest"]},
    });
    let path = folder.path().join("told.json");
    fs::write(&path, told.to_string()).expect("file");
    let path = path.to_str().expect("UTF-8");
    let after = report(&run(&story(&["story", path], &["--output", "json"])));
    assert_eq!(after["input"]["skipped"], 1);
    assert_eq!(after["input"]["ecrRecords"], before["input"]["ecrRecords"]);
    let state = |report: &Value| {
        let images = report["images"].as_array().expect("images").iter();
        let mut states = images.filter(|one| one["digest"] == image["digest"]);
        states.next().expect("the image")["state"].clone()
    };
    assert_eq!(
        (state(&before), state(&after)),
        ("Expired".into(), "Present".into())
    );
    let types = |report: &Value| report["findings"].to_string();
    assert!(!types(&after).contains("ImageExpired"));
    // Before it went, it says nothing.
    let early = told
        .to_string()
        .replace("2026-11-21T00:00:00Z", "2026-11-19T00:00:00Z");
    fs::write(path, early).expect("file");
    let after = report(&run(&story(&["story", path], &["--output", "json"])));
    assert_eq!(after["findings"], before["findings"]);
}

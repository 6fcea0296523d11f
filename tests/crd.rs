//! The definitions that are committed are the ones that the program prints.

#[test]
fn the_committed_definitions_are_what_the_command_prints() {
    let committed = include_str!("../crds/ecraudit.io.yaml");
    let printed = ecr_audit::api::crds_yaml().unwrap();
    assert!(
        committed == printed,
        "crds/ecraudit.io.yaml is stale: run `cargo run -- crd > crds/ecraudit.io.yaml`"
    );
}

//! The `ecr-audit` command.

fn main() {}

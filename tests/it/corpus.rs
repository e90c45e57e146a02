//! What fuzzers start from, and what they have found: each input that is kept is checked as its fuzz target would.

use nigh_tests::{fuzzed, guests};

#[test]
fn every_input_that_is_kept_holds() {
    for (target, check) in fuzzed::TARGETS {
        let mut checked = 0;
        for folder in ["corpus", "regressions"] {
            let folder = guests::root().join("fuzz").join(folder).join(target);
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let held = std::panic::catch_unwind(|| check(&std::fs::read(&path).unwrap()));
                assert!(held.is_ok(), "{} does not hold; see the panic above", path.display());
                checked += 1;
            }
        }
        assert!(checked > 0, "nothing is kept for {target}");
    }
}

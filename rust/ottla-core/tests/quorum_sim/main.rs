//! The quorum under crashes, power failures, full disks and a bad network: one leader an epoch, committed logs agree,
//! the high watermark never goes back, acknowledged proposals survive, and after healing there is progress.
//!
//! A failing run names its seed: `OTTLA_SIM_SEED=<seed> cargo test -p ottla-core --test quorum_sim` runs it alone, for
//! each number of voters. `OTTLA_SIM_RUNS` is the number of seeds otherwise.

mod chance;
mod cluster;
mod lone;

use cluster::Cluster;

const EVENTS_OF_TROUBLE: u64 = 4_000;
const EVENTS_TO_HEAL_MAX: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seeds() -> Vec<u64> {
    match number("OTTLA_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("OTTLA_SIM_RUNS").unwrap_or(40)).collect(),
    }
}

fn run(seed: u64, voters: usize) -> Cluster {
    let mut cluster = Cluster::new(seed, voters);
    for _ in 0..EVENTS_OF_TROUBLE {
        cluster.step();
    }
    cluster.heal();
    cluster.run_until_converged(EVENTS_TO_HEAL_MAX);
    cluster.check_acked();
    cluster.crash_everything();
    cluster.heal();
    cluster.run_until_converged(EVENTS_TO_HEAL_MAX);
    cluster.check_acked();
    cluster
}

fn run_all(voters: usize) {
    let mut acked = 0;
    let mut installed = 0;
    for seed in seeds() {
        let cluster = run(seed, voters);
        acked += cluster.acked.len();
        installed += cluster.installed;
    }
    println!(
        "{voters} voters, {} seeds: {acked} proposals acknowledged, {installed} snapshots installed",
        seeds().len()
    );
    assert!(acked > 0);
    assert!(
        voters == 1 || number("OTTLA_SIM_SEED").is_some() || installed > 0,
        "no run installed a snapshot"
    );
}

#[test]
fn one_voter() {
    run_all(1);
}

#[test]
fn three_voters() {
    run_all(3);
}

#[test]
fn five_voters() {
    run_all(5);
}

#[test]
fn a_seed_says_everything() {
    let (first, second) = (run(7, 3), run(7, 3));
    assert_eq!(
        (first.trace, first.events, first.now_ms),
        (second.trace, second.events, second.now_ms)
    );
}

#[test]
fn a_lone_voter_survives_a_crash_at_every_single_change_of_its_disk() {
    let crashes = lone::crash_everywhere();
    println!("{crashes} crashes");
    assert!(crashes > 200);
}

#[test]
fn a_flipped_bit_anywhere_is_harmless_or_refused_by_name() {
    let (harmless, refused) = lone::flip_everywhere();
    println!("{refused} flips refused, {harmless} harmless");
    // most bytes are those of snapshots, each of which the other one and the log can replace
    assert!(refused > 2_000);
}

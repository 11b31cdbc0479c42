//! No address is drawn twice: over requests, retries, uploads and restarts.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use trefoil_mpc::program::Reveal;
use trefoil_testkit::small::{input, network, weights};
use trefoil_testkit::{DrawLog, World};

fn logs(world: &World) -> [&DrawLog; 3] {
    [&world.alice_draws, &world.bob_draws, &world.carol_draws]
}

#[test]
fn no_draw_is_made_twice() {
    let mut world = World::new(11);
    let mut before = 0;
    for (round, reveal) in [Reveal::Logits, Reveal::Label, Reveal::Logits].into_iter().enumerate() {
        // An upload, requests of several sizes, and retries with the same input.
        let p = network(reveal).unwrap();
        let model = world.share(&p, &weights(&p, round as u64 % 2).unwrap()).unwrap();
        for batch in [1, 3, 70, 1, 1] {
            world.run(&model, batch, &input(6 * batch, 0)).unwrap();
        }
        for log in logs(&world) {
            assert_eq!(log.repeated(), []);
        }
        assert!(world.alice_draws.len() > before + 100);
        before = world.alice_draws.len();
        // A restart: what was running is gone, lots go on above the durable counter; then a new epoch.
        world.skip_lots(1000);
        if round == 1 {
            world.new_epoch();
        }
    }
}

#[test]
fn a_repeated_lot_is_found() {
    let mut world = World::new(12);
    let p = network(Reveal::Label).unwrap();
    let model = world.share(&p, &weights(&p, 0).unwrap()).unwrap();
    world.run(&model, 1, &input(6, 0)).unwrap();
    world.repeat_lot();
    world.run(&model, 1, &input(6, 1)).unwrap();
    for log in logs(&world) {
        assert!(log.repeated().len() > 20);
    }
}

/// What a restart that lost its counter would do: lots from one again. The new epoch alone keeps draws apart.
#[test]
fn a_new_epoch_keeps_lots_apart() {
    let mut world = World::new(13);
    let p = network(Reveal::Logits).unwrap();
    let model = world.share(&p, &weights(&p, 0).unwrap()).unwrap();
    for _ in 0..3 {
        world.run(&model, 2, &input(12, 0)).unwrap();
        world.new_epoch();
    }
    for log in logs(&world) {
        assert_eq!(log.repeated(), []);
    }
}

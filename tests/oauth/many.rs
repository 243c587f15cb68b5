//! Many keepers in one process, as a partner's app has one for each shop.

use std::fs;
use std::time::Duration;

use keysheath::Cadence;
use keysheath::oauth::{KeeperSettings, TokenKeeper};

use crate::answers::{JSON, app, good, granted, refused_once};
use crate::support::oidc::eventually;
use crate::support::{Folder, in_child};

const MANY: usize = 100;

/// That of all tasks, and those of three calls.
const MORE: usize = 4;

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn many_keepers_have_few_threads() {
    in_child::<&str>("many::many_keepers_have_few_threads", &[], || {
        let folder = Folder::new();
        let (_, store, server) = granted(&folder, |number| (JSON, good(number)));
        let before = threads();
        let few = || eventually("there are few threads", || threads() <= before + MORE);
        let settings = KeeperSettings::new().with_cadence(Cadence::every(Duration::from_secs(1)));
        let start =
            |_| TokenKeeper::start(app(server.address, &folder), store.clone(), settings.clone()).unwrap();
        let keepers: Vec<_> = (0..MANY).map(start).collect();
        few();
        let since: Vec<_> = keepers.iter().map(|keeper| keeper.status().health().last_success()).collect();
        let are_polled = || {
            let mut all = keepers.iter().zip(&since);
            all.all(|(keeper, since)| keeper.status().health().last_success() > *since)
        };
        eventually("each is polled", are_polled);
        few();
        let generation = |keeper: &TokenKeeper<_>| keeper.handle().load().unwrap().generation();
        let first = generation(&keepers[0]);
        keepers.iter().for_each(refused_once);
        eventually("each has the next token", || keepers.iter().all(|keeper| generation(keeper) > first));
        few();
        for keeper in keepers {
            assert!(keeper.close(Duration::from_secs(60)));
        }
        eventually("none is left but kept ones", || threads() <= before + 2);
    });
}

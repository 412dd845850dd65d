use super::{Call, Disk, Full, SimDisk};
use std::io;
use std::path::{Path, PathBuf};

const DIR: &str = "/data";

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

/// Every state that crashes with many seeds leave of one file; none when it is gone.
fn outcomes(prepare: impl Fn(&SimDisk)) -> Vec<Option<Vec<u8>>> {
    let mut seen = Vec::new();
    for seed in 0..200 {
        let disk = disk();
        prepare(&disk);
        disk.crash(seed);
        let outcome = disk.open(&path("f")).ok().map(|file| {
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            bytes
        });
        if !seen.contains(&outcome) {
            seen.push(outcome);
        }
    }
    seen
}

#[test]
fn what_was_synced_stays() {
    let seen = outcomes(|disk| {
        let file = disk.create(&path("f")).unwrap();
        file.write_at(&[7; 10_000], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
    });
    assert_eq!(seen, [Some(vec![7; 10_000])]);
}

#[test]
fn what_was_not_synced_may_be_lost_kept_or_torn() {
    let seen = outcomes(|disk| {
        let file = disk.create(&path("f")).unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        file.write_at(&[2; 1024], 0).unwrap();
    });
    let torn_in_order: Vec<u8> = [vec![2; 512], vec![1; 512]].concat();
    let torn_in_disorder: Vec<u8> = [vec![1; 512], vec![2; 512]].concat();
    for expected in [vec![1; 1024], vec![2; 1024], torn_in_order, torn_in_disorder] {
        assert!(seen.contains(&Some(expected)));
    }
    assert!(!seen.contains(&None));
}

#[test]
fn a_name_needs_its_directory_synced() {
    let seen = outcomes(|disk| {
        let file = disk.create(&path("f")).unwrap();
        file.write_at(b"x", 0).unwrap();
        file.sync_all().unwrap();
    });
    assert!(seen.contains(&None) && seen.contains(&Some(b"x".to_vec())) && seen.len() == 2);

    let seen = outcomes(|disk| {
        for (name, text) in [("f", b"old"), ("new", b"new")] {
            let file = disk.create(&path(name)).unwrap();
            file.write_at(text, 0).unwrap();
            file.sync_all().unwrap();
        }
        disk.sync_dir(Path::new(DIR)).unwrap();
        disk.rename(&path("new"), &path("f")).unwrap();
    });
    assert!(
        seen.contains(&Some(b"old".to_vec())) && seen.contains(&Some(b"new".to_vec())) && seen.len() == 2
    );
}

#[test]
fn the_same_seed_loses_the_same() {
    let run = |seed| {
        let disk = disk();
        let file = disk.create(&path("f")).unwrap();
        file.write_at(&[0; 100_000], 0).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        for n in 1..20_u8 {
            file.write_at(&[n; 5000], u64::from(n) * 4000).unwrap();
        }
        disk.crash(seed);
        let mut bytes = vec![0; 100_000];
        disk.open(&path("f")).unwrap().read_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn handles_and_locks_do_not_outlive_a_crash() {
    let disk = disk();
    let file = disk.create(&path("f")).unwrap();
    let lock = disk.lock(&path("LOCK")).unwrap();
    assert_eq!(disk.lock(&path("LOCK")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    disk.crash(0);
    assert!(file.write_at(b"x", 0).is_err());
    let _again = disk.lock(&path("LOCK")).unwrap();
    drop(lock);
    assert!(disk.lock(&path("LOCK")).is_err(), "a dead lock released a living one");
}

#[test]
fn a_shortened_file_grows_again_with_zeros() {
    let disk = disk();
    let file = disk.create(&path("f")).unwrap();
    file.write_at(&[9; 9000], 0).unwrap();
    file.set_len(5000).unwrap();
    file.allocate(9000).unwrap();
    let mut bytes = vec![1; 9000];
    file.read_at(&mut bytes, 0).unwrap();
    assert!(bytes[..5000].iter().all(|&byte| byte == 9));
    assert!(bytes[5000..].iter().all(|&byte| byte == 0));
    assert_eq!(file.read_at(&mut bytes, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_power_cut_lets_nothing_through_after_it() {
    let disk = disk();
    let file = disk.create(&path("f")).unwrap();
    disk.power_off_after(1);
    file.write_at(b"a", 0).unwrap();
    assert!(file.sync_data().is_err());
    assert!(file.write_at(b"b", 0).is_err());
    disk.crash(3);
    disk.create(&path("g")).unwrap();
}

#[test]
fn one_call_fails_and_a_write_that_fails_is_half_done() {
    let disk = disk();
    let file = disk.create(&path("f")).unwrap();
    file.write_at(&[1; 100], 0).unwrap();
    disk.fail_call_after(Call::Write, 1);
    file.write_at(&[2; 100], 0).unwrap();
    assert!(file.write_at(&[3; 100], 0).is_err());
    let mut bytes = [0; 100];
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[49], bytes[50]), (3, 2));
    disk.fail_call_after(Call::Read, 0);
    file.write_at(&[4; 100], 0).unwrap();
    assert!(file.read_at(&mut bytes, 0).is_err());
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [4; 100]);
}

#[test]
fn a_full_disk_takes_nothing_new_until_there_is_room_whatever_crashes() {
    let disk = disk();
    let file = disk.create(&path("f")).unwrap();
    file.allocate(100).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file.sync_all().unwrap();
    disk.fill(Some(Full::ToGrow));
    file.write_at(&[1; 100], 0).unwrap();
    let full = |error: io::Error| error.kind() == io::ErrorKind::StorageFull;
    assert!(file.write_at(&[1; 101], 0).is_err_and(full));
    assert!(file.allocate(101).is_err_and(full));
    assert!(disk.create(&path("g")).err().is_some_and(full));
    disk.crash(1);
    assert!(disk.create(&path("g")).err().is_some_and(full));
    let file = disk.open(&path("f")).unwrap();
    disk.fill(Some(Full::ToChange));
    assert!(file.write_at(&[1; 100], 0).is_err_and(full));
    disk.fill(None);
    file.write_at(&[1; 101], 0).unwrap();
    disk.create(&path("g")).unwrap();
}

//! A data set of three owners, from its declaration to its end, and what goes wrong on the way.

use crate::common::{Ended, Servers, eventually, trefoil, write_npy};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

const WARDS: &str = "name = \"wards\"\nrows = 6\n\
    [[column]]\nname = \"pixels\"\nwidth = 4\nscale = \"1/255\"\nrange = \"0..1\"\n\
    [[column]]\nname = \"label\"\nclasses = 3\n\
    [[part]]\nowner = \"client\"\ncolumn = \"pixels\"\nrows = \"0..4\"\n\
    [[part]]\nowner = \"guest\"\ncolumn = \"pixels\"\nrows = \"4..6\"\n\
    [[part]]\nowner = \"owner\"\ncolumn = \"label\"\n";

#[test]
fn three_owners_share_a_set() {
    let s = Servers::start(true);
    let at = |n: &str| s.path(n).display().to_string();
    let write = |n: &str, text: &str| std::fs::write(s.path(n), text).unwrap();
    write("wards.toml", WARDS);
    write("hole.toml", &WARDS.replace("4..6", "5..6"));
    write("stranger.toml", &WARDS.replace("guest", "zoe"));
    write_npy(&s.path("four.npy"), &[4, 2, 2], &[100.0; 16]);
    write_npy(&s.path("five.npy"), &[5, 4], &[100.0; 20]);
    write("two.csv", "1,2,3,4\n5,6,7,8\n");
    write("high.csv", "1,2,3,4\n5,6,7,800\n");
    write("labels.csv", "label\n0\n1\n2\n2\n1\n0\n");
    write("wrong.csv", "0\n1\n2\n3\n1\n0\n");

    let declared = json(&s.settled("owner", &["data", "declare", &at("wards.toml"), "--json"]));
    assert_eq!((declared["columns"].as_u64(), declared["complete"].as_bool()), (Some(7), Some(false)));
    assert_eq!(declared["metric_rows"].as_u64(), Some(10));
    let contribute = |part: &'static str, file: &str| {
        ["data", "contribute", "wards", "--part", part, "--input"].map(str::to_owned).into_iter().chain([at(file)])
    };
    let fails = |who: &str, part: &'static str, file: &str, labels: bool, said: &str| {
        let mut args: Vec<String> = contribute(part, file).collect();
        args.extend(labels.then(|| "--labels".to_owned()));
        s.fails(who, &args.iter().map(String::as_str).collect::<Vec<_>>(), said);
    };
    s.fails("owner", &["data", "declare", &at("wards.toml")], "a data set named wards exists");
    s.fails("owner", &["data", "declare", &at("hole.toml")], "a hole: nobody contributes rows 4..5 of block pixels");
    s.fails("owner", &["data", "declare", &at("none.toml")], "none.toml");
    s.fails("client", &["data", "declare", &at("wards.toml")], "client may not declare data sets");
    s.fails("client", &["data", "contribute", "x", "--part", "0", "--input", &at("four.npy")], "no data set \"x\"");
    s.fails("client", &["data", "drop", "wards"], "client has declared no data set wards");
    fails("guest", "0", "four.npy", false, "part 0 of data set wards is client's");
    fails("client", "0", "five.npy", false, "5 rows where part 0 has 4");
    fails("client", "0", "two.csv", false, "2 rows where part 0 has 4");
    fails("client", "3", "four.npy", false, "has no part 3");
    fails("client", "0", "labels.csv", true, "leave out --labels");
    fails("client", "0", "labels.csv", false, "[4] is wanted");
    fails("owner", "2", "labels.csv", false, "add --labels");
    fails("owner", "2", "wrong.csv", true, "row 3 of the part has label 3");
    fails("guest", "1", "high.csv", false, "element 3 is 800");
    fails("guest", "1", "missing.csv", false, "missing.csv");

    let run = |who: &str, part: &'static str, file: &str, more: &[&str]| {
        let args: Vec<String> = contribute(part, file).chain(more.iter().map(|a| (*a).to_owned())).collect();
        s.run(who, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(run("client", "0", "four.npy", &[]).contains("part 0 of wards is on the servers: 4 rows of 4"));
    fails("client", "0", "four.npy", false, "already there");
    let listed = s.run("guest", &["data", "list"]);
    assert!(listed.contains("parts are missing") && listed.contains("label (labels)"), "{listed}");
    assert_eq!(json(&run("guest", "1", "two.csv", &["--json"]))["rows"].as_u64(), Some(2));
    run("owner", "2", "labels.csv", &["--labels"]);
    let listed = json(&s.run("client", &["data", "list", "--json"]));
    assert_eq!((listed[0]["complete"].as_bool(), listed[0]["parts"][1]["arrived"].as_bool()), (Some(true), Some(true)));
    assert!(s.run("owner", &["data", "drop", "wards"]).contains("dropped wards"));
    assert!(s.run("owner", &["data", "list"]).contains("no data sets"));
    s.fails("owner", &["data", "declare", &at("stranger.toml")], "no client \"zoe\"");
    for party in ["alice", "bob", "carol"] {
        assert!(!s.log(party).contains("panicked"), "{}", s.log(party));
    }
}

#[test]
fn a_run_whose_set_is_dropped_ends_with_that_word() {
    let s = Servers::start(true);
    let at = |n: &str| s.path(n).display().to_string();
    let write = |n: &str, text: &str| std::fs::write(s.path(n), text).unwrap();
    write(
        "set.toml",
        "name = \"few\"\nrows = 40\n[[column]]\nname = \"x\"\nwidth = 3\nrange = \"-1..1\"\n\
         [[column]]\nname = \"y\"\nwidth = 1\nrange = \"0..1\"\n\
         [[part]]\nowner = \"owner\"\ncolumn = \"x\"\n[[part]]\nowner = \"guest\"\ncolumn = \"y\"\n",
    );
    write(
        "run.toml",
        "name = \"long\"\n[model]\ninput = [3]\nlayers = [{ dense = 1 }]\n[loss]\nname = \"binary-cross-entropy\"\n\
         [optimizer]\nname = \"sgd\"\nrate = 0.5\n[train]\nset = \"few\"\nepochs = 9000\nbatch = 10\n\
         [reveal]\nmetrics = \"coordinator\"\n",
    );
    write_npy(&s.path("x.npy"), &[40, 3], &[0.5; 120]);
    write_npy(&s.path("y.npy"), &[40, 1], &[1.0; 40]);
    s.settled("owner", &["data", "declare", &at("set.toml")]);
    s.settled("owner", &["data", "contribute", "few", "--part", "0", "--input", &at("x.npy")]);
    let args = s.with("owner", &["train", &at("run.toml")]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let log = std::fs::File::create(s.path("said.log")).unwrap();
    let training = trefoil(&args).stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap();
    let mut training = Ended(training);
    let said = || std::fs::read_to_string(s.path("said.log")).unwrap();
    let missing = "parts of data set few are missing";
    eventually("it waits for the data", || said().contains(&format!("waiting: {missing}\n")));
    // The table says what the JSON says.
    assert!(s.run("owner", &["runs"]).contains(missing));
    assert_eq!(json(&s.run("owner", &["runs", "--json"]))[0]["note"], missing);
    s.run("guest", &["data", "contribute", "few", "--part", "1", "--input", &at("y.npy")]);
    eventually("it waits for guest", || said().contains("waiting: without the agreement of guest\n"));
    s.run("guest", &["agree", "long", "--yes"]);
    eventually("an epoch is told", || said().contains("\nepoch 1/9000: loss "));
    assert!(said().contains("the servers train: 9000 epochs of 4 steps\n"), "{}", said());
    s.run("guest", &["agree", "long", "--withdraw"]);
    eventually("a withdrawal is told", || {
        said().contains("waiting: without the agreement of guest, who withdrew it\n")
    });
    let dropped = s.run("owner", &["data", "drop", "few"]);
    assert!(dropped.contains("run long was on these rows and cannot go on: trefoil runs --drop long"), "{dropped}");
    eventually("it gives up", || training.0.try_wait().unwrap().is_some());
    let said = said();
    assert!(said.lines().last().unwrap().starts_with("error: the data set of run long was dropped"), "{said}");
    assert!(said.contains("`trefoil runs --drop long` removes it"), "{said}");
    s.run("owner", &["runs", "--drop", "long"]);
}

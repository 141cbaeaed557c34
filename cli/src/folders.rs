//! The folders of the command itself: its history and logs, and where the daemon's socket may be.

use std::path::PathBuf;

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where the command keeps its history and the log of a daemon that it started.
pub(crate) fn state(env: Env<'_>) -> Option<PathBuf> {
    let own = absolute(env, "DSK_HOME").map(|home| home.join("state"));
    let xdg = || absolute(env, "XDG_STATE_HOME").map(|state| state.join("dsk"));
    let home = || absolute(env, "HOME").map(|home| home.join(".local/state/dsk"));
    own.or_else(xdg).or_else(home)
}

/// The sockets on which a daemon of this user or of the system may listen.
pub(crate) fn sockets(env: Env<'_>) -> Vec<PathBuf> {
    if let Some(chosen) = env("DSK_SOCKET").filter(|value| !value.is_empty()) {
        return absolute(&|_| Some(chosen.clone()), "DSK_SOCKET").into_iter().collect();
    }
    let user = absolute(env, "XDG_RUNTIME_DIR").map(|folder| folder.join("dsk.sock"));
    user.into_iter().chain([PathBuf::from("/run/dsk/dsk.sock")]).collect()
}

/// The environment of this process.
pub(crate) fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn absolute(env: Env<'_>, name: &str) -> Option<PathBuf> {
    env(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(vars: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn state_follows_dsk_home_then_xdg_then_home() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("DSK_HOME", "/d"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")], "/d/state"),
            (&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")], "/x/dsk"),
            (&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")], "/h/.local/state/dsk"),
            (&[("HOME", "/h")], "/h/.local/state/dsk"),
        ];
        for (vars, expected) in cases {
            assert_eq!(state(&env(vars)), Some(PathBuf::from(expected)), "{vars:?}");
        }
        assert_eq!(state(&env(&[])), None);
    }

    #[test]
    fn a_chosen_socket_is_the_only_one() {
        let chosen = sockets(&env(&[("DSK_SOCKET", "/a.sock"), ("XDG_RUNTIME_DIR", "/r")]));
        assert_eq!(chosen, [PathBuf::from("/a.sock")]);
        assert!(sockets(&env(&[("DSK_SOCKET", "none")])).is_empty());
        let default = sockets(&env(&[("XDG_RUNTIME_DIR", "/r")]));
        assert_eq!(default, ["/r/dsk.sock", "/run/dsk/dsk.sock"].map(PathBuf::from));
    }
}

//! The command line tool of ghostwire-store.

fn main() -> std::process::ExitCode {
    gwstore::main()
}

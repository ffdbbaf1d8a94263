// Alcovectl is the desk of a clinic's IT: it makes the clinic's offline keys and
// signs with them what rooms and hub obey.
//
// It works without a network. Only enrol and documents speak to the hub, over
// TLS 1.3 with the hub's key pinned by the owner root; the hub cannot make
// alcovectl sign a key that it chose, because the proof in a room's request is
// made with a join token that only the claim and the key folder hold.
//
// Everything is kept in the folder given with --keys:
//
//	keys/<role>-<n>.json     an owner's key, sealed with the passphrase
//	documents/<type>.json    what was signed last; owner roots all, by version
//	roster.draft.json        devices that the next roster lists
//	state.json               serials, open claims and their join tokens
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused (a signature, proof or
// log does not hold), 4 not there yet.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run executes one command line and returns the exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	d := &desk{stdin: stdin, stdout: stdout, stderr: stderr}
	cmd := d.command()
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	return d.report(cmd.ExecuteContext(ctx))
}

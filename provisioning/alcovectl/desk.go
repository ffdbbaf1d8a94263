package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/provisioning/document"
)

// Exit codes.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
	exitNotYet  = 4
)

// Errors that have an exit code of their own.
var (
	errUsage  = errors.New("wrong usage")
	errProof  = errors.New("the request was not made by the box that holds the claim")
	errNotYet = errors.New("not there yet")
)

// desk is one run: where it reads and writes, and the flags of all commands.
type desk struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	keys           string
	passphraseFile string
	json, dryRun   bool
}

func (d *desk) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "alcovectl",
		Short: "Make a clinic's keys, and sign what rooms and hub obey",
		Long: "alcovectl makes a clinic's offline keys and signs with them: owner root, roster, people and\n" +
			"configuration. It works without a network; only enrol and documents speak to the hub.\n\n" +
			"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused (a signature, proof or log does not\n" +
			"hold), 4 not there yet.",
		Example: "  alcovectl init --keys /media/safe/clinic\n" +
			"  alcovectl root create --keys /media/safe/clinic --clinic \"Example clinic\" --pin $(alcove-hub pin)\n" +
			"  alcovectl claim create --keys /media/safe/clinic --hub https://hub.clinic.example:8443 --room room-1 --label \"Room 1\" --out room-1.claim\n" +
			"  alcovectl enrol approve --keys /media/safe/clinic room-1.claim\n" +
			"  alcovectl roster sign --keys /media/safe/clinic\n" +
			"  alcovectl documents push --keys /media/safe/clinic",
		SilenceErrors: true, SilenceUsage: true,
		Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%w: a verb is needed; see alcovectl --help", errUsage)
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	flags := root.PersistentFlags()
	flags.StringVar(&d.keys, "keys", "", "folder with the clinic's keys and documents")
	flags.StringVar(&d.passphraseFile, "passphrase-file", "", "read the passphrase from the first line of this file instead of asking")
	flags.BoolVar(&d.json, "json", false, "answer in JSON")
	flags.BoolVar(&d.dryRun, "dry-run", false, "check and show, but write and send nothing")
	root.AddCommand(
		d.initCommand(), d.rootCommand(), d.claimCommand(), d.enrolCommand(), d.rosterCommand(),
		d.peopleCommand(), d.configCommand(), d.documentsCommand(), d.inspectCommand(), d.auditCommand(),
	)
	return root
}

// group is a command that only has others below it.
func group(use, short, example string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: short + ".", Example: example,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return fmt.Errorf("%w: alcovectl %s needs a verb; see alcovectl %s --help", errUsage, c.Name(), c.Name())
		},
	}
	c.AddCommand(below...)
	return c
}

func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return fmt.Errorf("%w: %w; see %s --help", errUsage, err, c.CommandPath())
		}
		return nil
	}
}

// report prints an error in plain words and chooses the exit code.
func (d *desk) report(err error) int {
	if err == nil {
		return 0
	}
	code := exitCode(err)
	if d.json {
		d.encode(d.stderr, struct {
			Error string `json:"error"`
			Code  int    `json:"code"`
		}{err.Error(), code})
		return code
	}
	fmt.Fprintf(d.stderr, "alcovectl: %v\n", err)
	return code
}

func exitCode(err error) int {
	for _, refused := range []error{
		errProof, errPin, audit.ErrTampered, document.ErrPayloadType, document.ErrSignature, document.ErrUnknownKey,
		document.ErrWrongRole, document.ErrDuplicateKey, document.ErrThreshold, document.ErrOtherClinic,
		document.ErrRootVersion, document.ErrReplay, document.ErrConflict, document.ErrExpired, document.ErrBroken,
	} {
		if errors.Is(err, refused) {
			return exitRefused
		}
	}
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errNotYet):
		return exitNotYet
	}
	return exitFailed
}

// answer prints a result: in JSON, or as the words.
func (d *desk) answer(result any, format string, a ...any) error {
	if d.json {
		return d.encode(d.stdout, result)
	}
	_, err := fmt.Fprintf(d.stdout, format+"\n", a...)
	return err
}

func (d *desk) encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// would says what a dry run left out.
func (d *desk) would() string {
	if d.dryRun {
		return "Nothing was written (--dry-run). "
	}
	return ""
}

// now is whole seconds in UTC, as documents have it.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

func after(days int) time.Time { return now().AddDate(0, 0, days) }

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/provisioning/document"
)

func (d *desk) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a document or a claim says, and whether it holds",
		Long: "Shows a signed document, or a claim without its join token. With --keys, a document is also verified\n" +
			"with the folder's owner root; without, nothing is proven.",
		Example: "  alcovectl inspect roster.json --keys clinic\n  alcovectl inspect room-1.claim",
		Args:    usage(cobra.ExactArgs(1)),
		RunE:    func(_ *cobra.Command, args []string) error { return d.inspect(args[0]) },
	}
}

type inspectAnswer struct {
	Type     string          `json:"type"`
	Order    string          `json:"order,omitempty"`
	Payload  document.Hash   `json:"payload_sha256"`
	Signers  []document.Hash `json:"signers"`
	Verified bool            `json:"verified"`
	Document json.RawMessage `json:"document"`
}

func (d *desk) inspect(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if c, err := document.ParseClaim(b); err == nil {
		return d.inspectClaim(c)
	}
	e, err := document.ParseEnvelope(b)
	if err != nil {
		return fmt.Errorf("%s is neither a signed document nor a claim: %w", path, err)
	}
	doc, err := document.Inspect(e)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	a := inspectAnswer{Type: string(doc.Type()), Order: doc.Order().String(), Payload: e.PayloadHash(), Document: json.RawMessage(e.Payload)}
	for _, s := range e.Signatures {
		a.Signers = append(a.Signers, s.KeyID)
	}
	words := "not verified: give --keys to verify it"
	if d.keys != "" {
		f, err := d.openFolder()
		if err != nil {
			return err
		}
		if err := f.needTrust(); err != nil {
			return err
		}
		if _, err := f.verify(e); err != nil {
			return fmt.Errorf("%s does not hold: %w", path, err)
		}
		a.Verified, words = true, "verified with the owner root of "+d.keys
	}
	pretty, err := json.MarshalIndent(a.Document, "", "  ")
	if err != nil {
		return err
	}
	return d.answer(a, "%s %s, sha256 %s, %d signatures, %s\n%s", a.Type, a.Order, a.Payload, len(a.Signers), words, pretty)
}

func (d *desk) inspectClaim(c *document.Claim) error {
	t, err := c.Verify(now())
	if err != nil {
		return err
	}
	a := struct {
		Type    string          `json:"type"`
		ClaimID string          `json:"claim_id"`
		Hub     string          `json:"hub"`
		Pins    []document.Hash `json:"hub_pins"`
		Clinic  document.Hash   `json:"clinic"`
		Expires string          `json:"expires"`
	}{"claim", c.ClaimID, c.Hub, c.HubPins, t.Clinic(), c.Expires.Format(time.RFC3339)}
	return d.answer(a, "claim %s of %s (%s)\nhub     %s\nexpires %s\nThe join token in it is a secret and is not shown.",
		c.ClaimID, t.Root().Clinic, t.Clinic(), c.Hub, c.Expires.Format(time.RFC3339))
}

func (d *desk) auditCommand() *cobra.Command {
	var key string
	var earlier []string
	verify := &cobra.Command{
		Use:   "verify DIR",
		Short: "Verify a room's log of what happened",
		Long: "Verifies every entry of a log, its tree and its signed checkpoint, without a network. Checkpoints kept\n" +
			"from earlier visits (the file named checkpoint) prove that nothing before them has changed since.\n" +
			"Exit code 3: the log does not hold.",
		Example: "  alcovectl audit verify /media/copy/audit --key \"alcove.example/room+1f2e3d4c+AQ…\" --earlier checkpoint-2027-01",
		Args:    usage(cobra.ExactArgs(1)),
		RunE:    func(_ *cobra.Command, args []string) error { return d.auditVerify(args[0], key, earlier) },
	}
	verify.Flags().StringVar(&key, "key", "", "the log's verifier key, or a file with it")
	verify.Flags().StringSliceVar(&earlier, "earlier", nil, "file with a checkpoint from before")
	return group("audit", "Verify rooms' logs", "  alcovectl audit verify --help", verify)
}

func (d *desk) auditVerify(dir, key string, earlier []string) error {
	if key == "" {
		return fmt.Errorf("%w: --key gives the log's verifier key", errUsage)
	}
	if b, err := os.ReadFile(key); err == nil {
		key = strings.TrimSpace(string(b))
	}
	var old [][]byte
	for _, path := range earlier {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		old = append(old, b)
	}
	r, err := audit.Verify(dir, key, old...)
	if err != nil {
		return err
	}
	return d.answer(r, "%s holds: %d entries from %s to %s, root %s; %d entries follow the checkpoint",
		r.Origin, r.Entries, r.First.Format("2006-01-02 15:04"), r.Last.Format("2006-01-02 15:04"), r.Root, r.Unsigned)
}

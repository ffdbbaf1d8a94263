package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/provisioning/document"
)

type claimOptions struct {
	hub, room, label, out string
	pins                  []string
	days                  int
}

func (d *desk) claimCommand() *cobra.Command {
	var o claimOptions
	create := &cobra.Command{
		Use:   "create",
		Short: "Make the file that brings a new box to the clinic",
		Long: "Makes a claim: the hub's address and key, the owner root, and a join token that is nowhere else but\n" +
			"in the key folder. Put the file on the box by hand. It is used once; treat it like a key.",
		Example: "  alcovectl claim create --keys clinic --hub https://hub.clinic.example:8443 --room room-1 --label \"Room 1\" --out room-1.claim",
		Args:    usage(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return d.claimCreate(o) },
	}
	fl := create.Flags()
	fl.StringVar(&o.hub, "hub", "", "https address of the hub's devices listener")
	fl.StringSliceVar(&o.pins, "pin", nil, "hub key to name in the claim; those of the owner root unless given")
	fl.StringVar(&o.room, "room", "", "name of the room in links and on the command line, such as room-1")
	fl.StringVar(&o.label, "label", "", "name of the room for people")
	fl.IntVar(&o.days, "days", 7, "days until it expires")
	fl.StringVar(&o.out, "out", "", "file to write")
	return group("claim", "Make claims for new boxes", "  alcovectl claim create --help", create)
}

type claimAnswer struct {
	ClaimID string    `json:"claim_id"`
	File    string    `json:"file"`
	Expires time.Time `json:"expires"`
	DryRun  bool      `json:"dry_run"`
}

func (d *desk) claimCreate(o claimOptions) error {
	if o.hub == "" || o.out == "" || o.room == "" {
		return fmt.Errorf("%w: --hub, --room and --out are needed", errUsage)
	}
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	if err := f.needTrust(); err != nil {
		return err
	}
	pins := f.trust.Root().HubPins
	if len(o.pins) > 0 {
		if pins, err = parsePins(o.pins); err != nil {
			return err
		}
	}
	id, token := make([]byte, 16), make([]byte, document.JoinTokenSize)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	if _, err := rand.Read(token); err != nil {
		return err
	}
	c := &document.Claim{
		Version: 1, ClaimID: hex.EncodeToString(id), Hub: strings.TrimSuffix(o.hub, "/"), HubPins: pins,
		OwnerRoots: f.roots, JoinToken: token, Expires: after(o.days),
	}
	b, err := encodeFile(c)
	if err != nil {
		return err
	}
	// What the box will check is checked here first.
	if _, err := document.ParseClaim(b); err != nil {
		return fmt.Errorf("a box would refuse this: %w", err)
	}
	if _, err := c.Verify(now()); err != nil {
		return fmt.Errorf("a box would refuse this: %w", err)
	}
	if o.label == "" {
		o.label = o.room
	}
	f.state.Hub = c.Hub
	f.state.Claims = append(f.state.Claims, claimState{
		ClaimID: c.ClaimID, JoinToken: token, Room: o.room, Label: o.label, Pins: pins,
		RootHash: f.trust.RootHash(), Expires: c.Expires,
	})
	if err := f.saveState(); err != nil {
		return err
	}
	if err := d.writeFile(o.out, b); err != nil {
		return err
	}
	return d.answer(claimAnswer{c.ClaimID, o.out, c.Expires, d.dryRun},
		"%sClaim %s for %s is in %s and expires on %s. Put it on the box, start the box, then: alcovectl enrol approve %s",
		d.would(), c.ClaimID, o.room, o.out, c.Expires.Format(time.DateOnly), o.out)
}

func (d *desk) enrolCommand() *cobra.Command {
	var address string
	list := &cobra.Command{
		Use:   "list",
		Short: "Show open claims, and whether a box has used them",
		Long: "Asks the hub for the request of every open claim and checks each proof with the join token. A request\n" +
			"whose proof does not hold was not made by the box that got the claim.",
		Example: "  alcovectl enrol list --keys clinic",
		Args:    usage(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return d.enrolList(c.Context(), address) },
	}
	var o deviceOptions
	approve := &cobra.Command{
		Use:   "approve CLAIM",
		Short: "Check a box's request and add the box to the roster's draft",
		Long: "Fetches the request that came under a claim (its id, or the claim file), checks the proof with the\n" +
			"join token, and adds the box to the draft. Nothing is granted before alcovectl roster sign. Exit code 4\n" +
			"means that no box has used the claim yet, 3 that somebody else did.",
		Example: "  alcovectl enrol approve --keys clinic room-1.claim\n" +
			"  alcovectl enrol approve --keys clinic 5f0c… --label \"Room 1\"",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return d.enrolApprove(c.Context(), args[0], address, o) },
	}
	o.flags(approve)
	for _, c := range []*cobra.Command{list, approve} {
		c.Flags().StringVar(&address, "hub", "", "address of the hub, unless it is the one last used")
	}
	return group("enrol", "Let new boxes into the clinic", "  alcovectl enrol list --keys clinic", list, approve)
}

type enrolAnswer struct {
	ClaimID string    `json:"claim_id"`
	Room    string    `json:"room"`
	State   string    `json:"state"` // waiting, asked, unproven, approved, expired
	Device  string    `json:"device,omitempty"`
	Expires time.Time `json:"expires"`
}

func (d *desk) enrolList(ctx context.Context, address string) error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	h, err := f.hub(address)
	if err != nil {
		return err
	}
	answers, lines := []enrolAnswer{}, []string{}
	for i := range f.state.Claims {
		c := &f.state.Claims[i]
		a := enrolAnswer{ClaimID: c.ClaimID, Room: c.Room, Device: c.Device, Expires: c.Expires}
		if a.State, err = h.stateOf(ctx, c); err != nil {
			return err
		}
		answers = append(answers, a)
		lines = append(lines, fmt.Sprintf("%s  %-12s %-9s expires %s", c.ClaimID, c.Room, a.State, c.Expires.Format(time.DateOnly)))
	}
	if len(lines) == 0 {
		lines = append(lines, "There are no claims; make one with alcovectl claim create.")
	}
	return d.answer(answers, "%s", strings.Join(lines, "\n"))
}

func (h *hub) stateOf(ctx context.Context, c *claimState) (string, error) {
	if c.Device != "" {
		return "approved", nil
	}
	if !now().Before(c.Expires) {
		return "expired", nil
	}
	e, err := h.enrolment(ctx, c.ClaimID)
	switch {
	case errors.Is(err, errNotYet):
		return "waiting", nil
	case err != nil:
		return "", err
	case !c.proves(e):
		return "unproven", nil
	}
	return "asked", nil
}

// proves checks the proof against each key of the hub that the claim allowed.
func (c *claimState) proves(e *document.Enrolment) bool {
	return e.ClaimID == c.ClaimID && slices.ContainsFunc(c.Pins, func(pin document.Hash) bool {
		return e.Prove(c.JoinToken, c.RootHash, pin)
	})
}

func (d *desk) enrolApprove(ctx context.Context, claim, address string, o deviceOptions) error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	id, err := claimID(claim)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(f.state.Claims, func(c claimState) bool { return c.ClaimID == id })
	if i < 0 {
		return fmt.Errorf("claim %s was not made with this folder", id)
	}
	c := &f.state.Claims[i]
	if c.Device != "" {
		return fmt.Errorf("claim %s was used by device %s; a claim is used once, make a new one with alcovectl claim create", id, c.Device)
	}
	if !now().Before(c.Expires) {
		return fmt.Errorf("claim %s: %w on %s; make a new one with alcovectl claim create", id, document.ErrExpired, c.Expires.Format(time.DateOnly))
	}
	h, err := f.hub(address)
	if err != nil {
		return err
	}
	e, err := h.enrolment(ctx, id)
	if errors.Is(err, errNotYet) {
		return fmt.Errorf("%w: no box has used claim %s; start the box with it and ask again", errNotYet, id)
	}
	if err != nil {
		return err
	}
	if !c.proves(e) {
		return fmt.Errorf("%w (claim %s): do not approve it; find out who got the claim id, and make a new claim", errProof, id)
	}
	if o.room == "" {
		o.room = c.Room
	}
	if o.label == "" {
		o.label = c.Label
	}
	device := o.device(e.TLSSPKI, e.SignSPKI)
	c.Device = device.ID
	// The draft first: after a crash in between the claim is open, and approving
	// it again adds the same device.
	if err := f.draft(device, o.replace); err != nil {
		return err
	}
	if err := f.saveState(); err != nil {
		return err
	}
	return d.answer(device, "%sDevice %s (%s) is in the roster's draft. Next: alcovectl roster sign", d.would(), device.ID, device.Label)
}

// claimID takes an id, or the file of a claim.
func claimID(claim string) (string, error) {
	b, err := os.ReadFile(claim)
	if errors.Is(err, os.ErrNotExist) {
		return claim, nil
	}
	if err != nil {
		return "", err
	}
	c, err := document.ParseClaim(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", claim, err)
	}
	return c.ClaimID, nil
}

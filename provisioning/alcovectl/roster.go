package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/provisioning/document"
)

// rosterDraft is what the next roster lists.
type rosterDraft struct {
	Devices []document.Device `json:"devices"`
}

// deviceOptions are the flags that describe a device.
type deviceOptions struct {
	room, label, protection string
	days                    int
	replace                 bool
}

func (o *deviceOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.room, "room", "", "name of the room in links and on the command line")
	c.Flags().StringVar(&o.label, "label", "", "name of the room for people")
	c.Flags().StringVar(&o.protection, "key-protection", document.ProtectionHost, "where the box keeps its keys: host or tpm")
	c.Flags().IntVar(&o.days, "device-days", 730, "days until the device's entry runs out")
	c.Flags().BoolVar(&o.replace, "replace", false, "take the place of the device that the room has now")
}

// device names a device by its signing key: the same box gets the same id.
func (o *deviceOptions) device(tlsSPKI, signSPKI []byte) document.Device {
	h := sha256.Sum256(signSPKI)
	return document.Device{
		ID: "d-" + hex.EncodeToString(h[:8]), Room: o.room, Label: o.label, TLSSPKI: tlsSPKI, SignSPKI: signSPKI,
		KeyProtection: o.protection, NotAfter: after(o.days),
	}
}

func (d *desk) rosterCommand() *cobra.Command {
	var o deviceOptions
	var tlsKey, signKey string
	add := &cobra.Command{
		Use:   "add",
		Short: "Add a device to the draft by its public keys",
		Long: "Adds a device whose public keys were brought by hand: two files with a public key each, PEM or DER.\n" +
			"Boxes that came with a claim are added by alcovectl enrol approve.",
		Example: "  alcovectl roster add --keys clinic --room room-1 --label \"Room 1\" --tls-key tls.pem --sign-key sign.pem",
		Args:    usage(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return d.rosterAdd(o, tlsKey, signKey) },
	}
	o.flags(add)
	add.Flags().StringVar(&tlsKey, "tls-key", "", "file with the device's public TLS key")
	add.Flags().StringVar(&signKey, "sign-key", "", "file with the device's public signing key")
	remove := &cobra.Command{
		Use:     "remove DEVICE",
		Short:   "Take a device out of the draft",
		Long:    "Takes a device out of the draft. It is revoked when the next roster is signed and pushed.",
		Example: "  alcovectl roster remove --keys clinic d-0123456789abcdef",
		Args:    usage(cobra.ExactArgs(1)),
		RunE:    func(_ *cobra.Command, args []string) error { return d.rosterRemove(args[0]) },
	}
	var days int
	var out string
	sign := &cobra.Command{
		Use:   "sign",
		Short: "Sign the draft as the next roster",
		Long: "Signs the draft as the clinic's next roster. Rooms stop when it expires: sign again in time. A short\n" +
			"life also ends stolen boxes that are kept away from the hub.",
		Example: "  alcovectl roster sign --keys clinic\n  alcovectl roster sign --keys clinic --days 14 --dry-run",
		Args:    usage(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return d.rosterSign(days, out) },
	}
	sign.Flags().IntVar(&days, "days", 30, "days until it expires")
	sign.Flags().StringVar(&out, "out", "", "write a copy here")
	show := &cobra.Command{
		Use:     "show",
		Short:   "Show the draft",
		Long:    "Shows the devices of the draft, which the next roster lists.",
		Example: "  alcovectl roster show --keys clinic --json",
		Args:    usage(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return d.rosterShow() },
	}
	return group("roster", "Say which devices belong to the clinic", "  alcovectl roster show --keys clinic", add, remove, sign, show)
}

func (f *folder) draftPath() string { return f.path("roster.draft.json") }

func (f *folder) readDraft() (*rosterDraft, error) {
	r := &rosterDraft{Devices: []document.Device{}}
	b, err := os.ReadFile(f.draftPath())
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := document.Decode(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", f.draftPath(), err)
	}
	return r, nil
}

// draft adds a device. The same device again replaces itself.
func (f *folder) draft(device document.Device, replace bool) error {
	r, err := f.readDraft()
	if err != nil {
		return err
	}
	r.Devices = slices.DeleteFunc(r.Devices, func(d document.Device) bool {
		return d.ID == device.ID || replace && d.Room == device.Room
	})
	for _, d := range r.Devices {
		if d.Room == device.Room {
			return fmt.Errorf("%s has device %s already; use --replace if this one takes its place", d.Room, d.ID)
		}
	}
	r.Devices = append(r.Devices, device)
	if err := f.checkDraft(r); err != nil {
		return err
	}
	return f.write(f.draftPath(), r)
}

// checkDraft says now what signing would say later.
func (f *folder) checkDraft(r *rosterDraft) error {
	if err := f.needTrust(); err != nil {
		return err
	}
	return (&document.Roster{Header: f.header(document.TypeRoster, document.TargetAll, 1), Devices: r.Devices}).Validate()
}

func (d *desk) rosterAdd(o deviceOptions, tlsKey, signKey string) error {
	if o.room == "" || tlsKey == "" || signKey == "" {
		return fmt.Errorf("%w: --room, --tls-key and --sign-key are needed", errUsage)
	}
	if o.label == "" {
		o.label = o.room
	}
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	var keys [2][]byte
	for i, path := range []string{tlsKey, signKey} {
		if keys[i], err = os.ReadFile(path); err != nil {
			return err
		}
		if block, _ := pem.Decode(keys[i]); block != nil {
			keys[i] = block.Bytes
		}
	}
	device := o.device(keys[0], keys[1])
	if err := f.draft(device, o.replace); err != nil {
		return err
	}
	return d.answer(device, "%sDevice %s (%s) is in the roster's draft. Next: alcovectl roster sign", d.would(), device.ID, device.Label)
}

func (d *desk) rosterRemove(id string) error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	r, err := f.readDraft()
	if err != nil {
		return err
	}
	n := len(r.Devices)
	r.Devices = slices.DeleteFunc(r.Devices, func(d document.Device) bool { return d.ID == id })
	if len(r.Devices) == n {
		return fmt.Errorf("the draft has no device %s; see alcovectl roster show", id)
	}
	if err := f.write(f.draftPath(), r); err != nil {
		return err
	}
	return d.answer(r, "%sDevice %s is out of the draft. It is revoked by: alcovectl roster sign, alcovectl documents push", d.would(), id)
}

func (d *desk) rosterSign(days int, out string) error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	if err := f.needTrust(); err != nil {
		return err
	}
	draft, err := f.readDraft()
	if err != nil {
		return err
	}
	r := &document.Roster{Header: f.header(document.TypeRoster, document.TargetAll, days), Devices: draft.Devices}
	e, err := f.sign(r, document.RoleRoster)
	if err != nil {
		return err
	}
	a, err := f.keep(e, r, f.documentPath(r.Type(), r.Target), out)
	if err != nil {
		return err
	}
	return d.answerSigned(a, r.Expires)
}

func (d *desk) rosterShow() error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	r, err := f.readDraft()
	if err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("%d devices", len(r.Devices))}
	for _, v := range r.Devices {
		lines = append(lines, fmt.Sprintf("%s  %-12s keys in %s, until %s, %s", v.ID, v.Room, v.KeyProtection, v.NotAfter.Format(time.DateOnly), v.Label))
	}
	return d.answer(r, "%s", strings.Join(lines, "\n"))
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/daemon/durable"
	"github.com/alcove-room/alcove/provisioning/document"
)

func roles() []string {
	return []string{document.RoleRoot, document.RoleRoster, document.RolePeople, document.RoleConfig}
}

func (d *desk) initCommand() *cobra.Command {
	var rootKeys int
	var role string
	c := &cobra.Command{
		Use:   "init",
		Short: "Make the clinic's keys in a new folder",
		Long: "Makes the clinic's keys: several of the role root, and one each for roster, people and config.\n" +
			"Every key is a file of its own, sealed with the passphrase. Keep the root keys apart and offline:\n" +
			"two of them together decide who the clinic is. With --role, adds one key to an existing folder;\n" +
			"the next owner root lists it.",
		Example: "  alcovectl init --keys /media/safe/clinic\n" +
			"  alcovectl init --keys /media/safe/clinic --role config",
		Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if d.keys == "" {
				return fmt.Errorf("%w: --keys names the folder to make", errUsage)
			}
			if role != "" {
				return d.addKey(role)
			}
			return d.init(rootKeys)
		},
	}
	c.Flags().IntVar(&rootKeys, "root-keys", 3, "number of keys of the role root")
	c.Flags().StringVar(&role, "role", "", "add one key of this role to an existing folder")
	return c
}

type initAnswer struct {
	Keys   []keyAnswer `json:"keys"`
	DryRun bool        `json:"dry_run"`
}

type keyAnswer struct {
	Role string        `json:"role"`
	ID   document.Hash `json:"id"`
	File string        `json:"file"`
}

func (d *desk) init(rootKeys int) error {
	if rootKeys < 1 || rootKeys > 8 {
		return fmt.Errorf("%w: --root-keys is 1 to 8", errUsage)
	}
	if entries, err := os.ReadDir(d.keys); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty; keys are made in a new folder only", d.keys)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := d.askLock(true)
	if err != nil {
		return err
	}
	k, err := newKDF()
	if err != nil {
		return err
	}
	if !d.dryRun {
		for _, name := range []string{"keys", "documents"} {
			if err := durable.MkdirAll(filepath.Join(d.keys, name), 0o700); err != nil {
				return err
			}
		}
	}
	f := &folder{desk: d, dir: d.keys, state: state{Version: 1, Serials: map[string]document.Order{}, Claims: []claimState{}}}
	a := initAnswer{DryRun: d.dryRun}
	for _, role := range append(slices.Repeat([]string{document.RoleRoot}, rootKeys-1), roles()...) {
		made, err := f.makeKey(l, role, k)
		if err != nil {
			return err
		}
		a.Keys = append(a.Keys, made)
	}
	if err := f.saveState(); err != nil { // last: it makes the folder a key folder
		return err
	}
	return d.answer(a, "%s%d keys made in %s. Next: alcovectl root create --keys %s --clinic NAME --pin PIN", d.would(), len(a.Keys), d.keys, d.keys)
}

func (d *desk) addKey(role string) error {
	if !slices.Contains(roles(), role) {
		return fmt.Errorf("%w: --role is one of %s", errUsage, strings.Join(roles(), ", "))
	}
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	files, err := f.keyFiles()
	if err != nil {
		return err
	}
	l, err := d.askLock(false)
	if err != nil {
		return err
	}
	// Under the folder's passphrase, proven by opening a key, not under a mistyped one.
	for _, other := range files {
		if _, err := l.open(other[0]); err != nil {
			return err
		}
		break
	}
	k, err := newKDF()
	if err != nil {
		return err
	}
	made, err := f.makeKey(l, role, k)
	if err != nil {
		return err
	}
	return d.answer(initAnswer{Keys: []keyAnswer{made}, DryRun: d.dryRun},
		"%sA key for %s was made: %s. It counts once the next owner root lists it: alcovectl root create", d.would(), role, made.File)
}

func (f *folder) makeKey(l *lock, role string, k kdf) (keyAnswer, error) {
	file, err := l.sealKey(role, k)
	if err != nil {
		return keyAnswer{}, err
	}
	path := f.keyPath(role, file.ID)
	return keyAnswer{Role: role, ID: file.ID, File: path}, f.write(path, file)
}

// rootOptions are the flags of root create. What is not given stays as it was.
type rootOptions struct {
	clinic    string
	pins      []string
	recovery  []string
	drop      []string
	more      []string
	demo      bool
	threshold int
	days      int
	out       string
}

func (d *desk) rootCommand() *cobra.Command {
	var o rootOptions
	create := &cobra.Command{
		Use:   "create",
		Short: "Sign the first owner root, or the next",
		Long: "Signs an owner root with the keys of the folder: the first one, or one that follows the newest and\n" +
			"takes over everything that no flag changes. The next root is signed by the old root's keys and by\n" +
			"its own. Bring keys that are kept elsewhere with --more-keys.",
		Example: "  alcovectl root create --keys clinic --clinic \"Example clinic\" --pin $(alcove-hub pin)\n" +
			"  alcovectl root create --keys clinic --pin CURRENT --pin NEXT --more-keys /media/second-stick\n" +
			"  alcovectl root create --keys clinic --drop KEYID",
		Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return d.rootCreate(o) },
	}
	fl := create.Flags()
	fl.StringVar(&o.clinic, "clinic", "", "the clinic's name, for people")
	fl.StringSliceVar(&o.pins, "pin", nil, "SHA-256 of the hub's public key, as alcove-hub pin prints it; again for the next key")
	fl.StringSliceVar(&o.recovery, "recovery-key", nil, "file with a recovery public key (X-Wing, 1216 bytes)")
	fl.StringSliceVar(&o.drop, "drop", nil, "id of a key that the new root no longer lists")
	fl.StringSliceVar(&o.more, "more-keys", nil, "another folder with root keys to sign with")
	fl.BoolVar(&o.demo, "demo", false, "mark the clinic as a demonstration, for good: real rooms and hubs refuse it")
	fl.IntVar(&o.threshold, "root-threshold", 0, "root keys that must sign (2, or 1 when there is one key)")
	fl.IntVar(&o.days, "days", 730, "days until it expires")
	fl.StringVar(&o.out, "out", "", "write a copy here")
	show := &cobra.Command{
		Use:   "show",
		Short: "Show the owner root in force",
		Long:  "Shows the newest owner root of the folder: the clinic's hash, roles, hub pins and dates.",
		Example: "  alcovectl root show --keys clinic\n" +
			"  alcovectl root show --keys clinic --json",
		Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return d.rootShow() },
	}
	return group("root", "Sign and show the clinic's owner root", "  alcovectl root show --keys clinic", create, show)
}

func (d *desk) rootCreate(o rootOptions) error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	files, err := f.keyFiles(o.more...)
	if err != nil {
		return err
	}
	r, err := f.nextRoot(o, files)
	if err != nil {
		return err
	}
	l, err := d.askLock(false)
	if err != nil {
		return err
	}
	var keys []*document.PrivateKey
	for _, file := range files[document.RoleRoot] {
		if !lists(r.Roles[document.RoleRoot], file.ID) && (f.trust == nil || !lists(f.trust.Root().Roles[document.RoleRoot], file.ID)) {
			continue
		}
		k, err := l.open(file)
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	e, err := document.Sign(r, keys...)
	if err != nil {
		return err
	}
	chain := append(slices.Clone(f.roots), e)
	if _, err := document.VerifyOwnerRoot(chain[0].PayloadHash(), chain, now()); err != nil {
		return fmt.Errorf("the root would not be accepted, nothing was written: %w", err)
	}
	a, err := f.keep(e, r, f.rootPath(int(r.Version)), o.out)
	if err != nil {
		return err
	}
	if err := f.retire(o.drop); err != nil {
		return err
	}
	return d.answerSigned(a, r.Expires)
}

// retire puts dropped keys aside, so that the next root does not list them again.
func (f *folder) retire(drop []string) error {
	files, err := f.keyFiles()
	if err != nil || f.desk.dryRun {
		return err
	}
	for role, list := range files {
		for _, k := range list {
			path := f.keyPath(role, k.ID)
			if !slices.Contains(drop, k.ID.String()) {
				continue
			}
			if err := durable.Rename(path, path+".retired"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *folder) keyPath(role string, id document.Hash) string {
	return f.path("keys", fmt.Sprintf("%s-%.8s.json", role, id))
}

func (f *folder) nextRoot(o rootOptions, files map[string][]*keyFile) (*document.OwnerRoot, error) {
	r := &document.OwnerRoot{
		Version: 1, Demo: o.demo, Clinic: o.clinic, HubPins: []document.Hash{}, RecoveryKeys: []document.Bytes{},
		Roles: make(map[string]document.Role), Issued: now(), Expires: after(o.days),
	}
	threshold := min(2, len(files[document.RoleRoot]))
	if f.trust != nil {
		old := f.trust.Root()
		r.Version, r.Owner, r.Demo = old.Version+1, f.trust.Clinic(), old.Demo
		r.HubPins, r.RecoveryKeys = old.HubPins, old.RecoveryKeys
		threshold = old.Roles[document.RoleRoot].Threshold
		if o.clinic == "" {
			r.Clinic = old.Clinic
		}
		if o.demo && !old.Demo {
			return nil, errors.New("a clinic cannot become a demonstration; make keys in another folder with alcovectl init")
		}
	}
	if r.Clinic == "" {
		return nil, fmt.Errorf("%w: --clinic gives the clinic's name", errUsage)
	}
	if o.threshold > 0 {
		threshold = o.threshold
	}
	if err := o.fill(r); err != nil {
		return nil, err
	}
	dropped := make(map[string]bool)
	for _, name := range roles() {
		role := document.Role{Threshold: 1}
		if name == document.RoleRoot {
			role.Threshold = threshold
		}
		for _, k := range f.publicKeys(name, files) {
			if slices.Contains(o.drop, k.ID().String()) {
				dropped[k.ID().String()] = true
				continue
			}
			role.Keys = append(role.Keys, k)
		}
		r.Roles[name] = role
	}
	for _, id := range o.drop {
		if !dropped[id] {
			return nil, fmt.Errorf("%w: --drop %.80q is no key of the clinic; alcovectl root show lists their ids", errUsage, id)
		}
	}
	return r, nil
}

// publicKeys are those of the old root, and those whose files are here.
func (f *folder) publicKeys(role string, files map[string][]*keyFile) []document.PublicKey {
	var keys []document.PublicKey
	if f.trust != nil {
		keys = slices.Clone(f.trust.Root().Roles[role].Keys)
	}
	for _, file := range files[role] {
		if !lists(document.Role{Keys: keys}, file.ID) {
			keys = append(keys, file.Public)
		}
	}
	return keys
}

func (o *rootOptions) fill(r *document.OwnerRoot) error {
	if len(o.pins) > 0 {
		pins, err := parsePins(o.pins)
		if err != nil {
			return err
		}
		r.HubPins = pins
	}
	if len(o.recovery) > 0 {
		r.RecoveryKeys = nil
	}
	for _, path := range o.recovery {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r.RecoveryKeys = append(r.RecoveryKeys, b)
	}
	return nil
}

func parsePins(list []string) ([]document.Hash, error) {
	pins := []document.Hash{}
	for _, s := range list {
		p, err := document.ParseHash(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("%w: --pin %.80q: %w", errUsage, s, err)
		}
		pins = append(pins, p)
	}
	return pins, nil
}

func (d *desk) rootShow() error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	if err := f.needTrust(); err != nil {
		return err
	}
	r := f.trust.Root()
	var b strings.Builder
	fmt.Fprintf(&b, "clinic    %s\nhash      %s\nversion   %d, issued %s, expires %s\n", r.Clinic, f.trust.Clinic(), r.Version,
		r.Issued.Format(time.DateOnly), r.Expires.Format(time.DateOnly))
	if r.Demo {
		fmt.Fprintf(&b, "          a demonstration: real rooms and hubs refuse it\n")
	}
	for _, name := range roles() {
		role := r.Roles[name]
		fmt.Fprintf(&b, "%-9s %d of %d keys\n", name, role.Threshold, len(role.Keys))
		for _, k := range role.Keys {
			fmt.Fprintf(&b, "          %s\n", k.ID())
		}
	}
	for _, p := range r.HubPins {
		fmt.Fprintf(&b, "hub pin   %s\n", p)
	}
	payload := json.RawMessage(f.roots[len(f.roots)-1].Payload)
	return d.answer(struct {
		Clinic document.Hash   `json:"clinic"`
		Root   json.RawMessage `json:"owner_root"`
	}{f.trust.Clinic(), payload}, "%s", strings.TrimSuffix(b.String(), "\n"))
}

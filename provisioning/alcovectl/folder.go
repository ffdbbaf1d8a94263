package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/alcove-room/alcove/daemon/durable"
	"github.com/alcove-room/alcove/provisioning/document"
)

// folder is an opened key folder.
type folder struct {
	desk  *desk
	dir   string
	state state
	roots []*document.Envelope // from version 1 on
	trust *document.Trust      // nil before the first owner root
}

// state is what the desk must remember between two runs.
type state struct {
	Version int                       `json:"version"` // 1
	Hub     string                    `json:"hub"`     // devices listener, as last given
	Serials map[string]document.Order `json:"serials"` // highest that was signed, by type
	Claims  []claimState              `json:"claims"`
}

// claimState is the desk's half of a claim. The join token is a secret.
type claimState struct {
	ClaimID   string          `json:"claim_id"`
	JoinToken document.Bytes  `json:"join_token"`
	Room      string          `json:"room"`
	Label     string          `json:"label"`
	Pins      []document.Hash `json:"pins"`
	RootHash  document.Hash   `json:"root_hash"`
	Expires   time.Time       `json:"expires"`
	Device    string          `json:"device,omitempty"` // who used it; a claim is used once
}

// openFolder reads the folder and verifies the owner roots in it.
func (d *desk) openFolder() (*folder, error) {
	if d.keys == "" {
		return nil, fmt.Errorf("%w: --keys names the folder with the clinic's keys", errUsage)
	}
	f := &folder{desk: d, dir: d.keys}
	b, err := os.ReadFile(f.path("state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is no key folder; make one with alcovectl init --keys %s", d.keys, d.keys)
	}
	if err != nil {
		return nil, err
	}
	if err := document.Decode(b, &f.state); err != nil || f.state.Version != 1 {
		return nil, fmt.Errorf("state.json: version %d: %w", f.state.Version, err)
	}
	if f.state.Serials == nil {
		f.state.Serials = make(map[string]document.Order)
	}
	return f, f.readRoots()
}

// readRoots takes the first root for the anchor: the folder is the clinic's own.
func (f *folder) readRoots() error {
	for n := 1; ; n++ {
		e, err := readEnvelope(f.rootPath(n))
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		f.roots = append(f.roots, e)
	}
	if len(f.roots) == 0 {
		return nil
	}
	// An expired root still says who the clinic is, and is needed to sign the next.
	at := now()
	last, err := document.Inspect(f.roots[len(f.roots)-1])
	if err != nil {
		return err
	}
	root, ok := last.(*document.OwnerRoot)
	if !ok {
		return fmt.Errorf("%s holds another document", f.rootPath(len(f.roots)))
	}
	if !at.Before(root.Expires) {
		fmt.Fprintf(f.desk.stderr, "alcovectl: the owner root expired on %s; sign the next with alcovectl root create\n",
			root.Expires.Format(time.DateOnly))
		at = root.Issued
	}
	f.trust, err = document.VerifyOwnerRoot(f.roots[0].PayloadHash(), f.roots, at)
	return err
}

// needTrust is for verbs that make no sense without an owner root.
func (f *folder) needTrust() error {
	if f.trust == nil {
		return fmt.Errorf("there is no owner root yet; make it with alcovectl root create --keys %s --clinic NAME", f.dir)
	}
	return nil
}

func (f *folder) path(name ...string) string {
	return filepath.Join(append([]string{f.dir}, name...)...)
}

func (f *folder) rootPath(n int) string {
	return f.path("documents", fmt.Sprintf("owner-root.%d.json", n))
}

func (f *folder) documentPath(t document.Type, target string) string {
	name := string(t)
	if target != document.TargetAll {
		name += "." + target
	}
	return f.path("documents", name+".json")
}

// write keeps v for good, unless it is a dry run.
func (f *folder) write(path string, v any) error {
	b, err := encodeFile(v)
	if err != nil {
		return err
	}
	return f.desk.writeFile(path, b)
}

func (d *desk) writeFile(path string, b []byte) error {
	if d.dryRun {
		return nil
	}
	return durable.WriteFile(path, b, 0o600)
}

func (f *folder) saveState() error { return f.write(f.path("state.json"), f.state) }

// keyFiles lists the keys of the folder, and of further folders, by role.
func (f *folder) keyFiles(more ...string) (map[string][]*keyFile, error) {
	files := make(map[string][]*keyFile)
	seen := make(map[document.Hash]bool)
	for _, dir := range append([]string{f.dir}, more...) {
		paths, err := filepath.Glob(filepath.Join(dir, "keys", "*.json"))
		if err != nil {
			return nil, err
		}
		sort.Strings(paths)
		if len(paths) == 0 {
			return nil, fmt.Errorf("%s has no keys", dir)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				return nil, err
			}
			k, err := parseKeyFile(b)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p, err)
			}
			if !seen[k.ID] {
				seen[k.ID] = true
				files[k.Role] = append(files[k.Role], k)
			}
		}
	}
	return files, nil
}

// sign signs a document of the role with as many keys as the role demands.
func (f *folder) sign(d document.Document, role string) (*document.Envelope, error) {
	files, err := f.keyFiles()
	if err != nil {
		return nil, err
	}
	r := f.trust.Root().Roles[role]
	l, err := f.desk.askLock(false)
	if err != nil {
		return nil, err
	}
	var keys []*document.PrivateKey
	for _, file := range files[role] {
		if len(keys) == r.Threshold || !lists(r, file.ID) {
			continue
		}
		k, err := l.open(file)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) < r.Threshold {
		return nil, fmt.Errorf("%w: the owner root demands %d of role %s, this folder has %d", document.ErrThreshold, r.Threshold, role, len(keys))
	}
	return document.Sign(d, keys...)
}

func lists(r document.Role, id document.Hash) bool {
	for _, k := range r.Keys {
		if k.ID() == id {
			return true
		}
	}
	return false
}

// header is that of the next document of a type.
func (f *folder) header(t document.Type, target string, days int) document.Header {
	last := f.state.Serials[string(t)]
	return document.Header{
		Owner: f.trust.Clinic(), RootVersion: f.trust.Root().Version, Serial: last.Serial + 1,
		Issued: now(), Expires: after(days), Target: target,
	}
}

// keep stores a signed document: the serial first, so that a crash in between
// wastes one and never signs one twice.
func (f *folder) keep(e *document.Envelope, d document.Document, path, out string) (signedAnswer, error) {
	f.state.Serials[string(d.Type())] = d.Order()
	a := signedAnswer{Type: d.Type(), Order: d.Order().String(), Payload: e.PayloadHash(), File: path, DryRun: f.desk.dryRun}
	if err := f.saveState(); err != nil {
		return a, err
	}
	if err := f.write(path, e); err != nil {
		return a, err
	}
	if out != "" {
		a.File = out
		return a, f.write(out, e)
	}
	return a, nil
}

// signedAnswer tells about a document that was signed.
type signedAnswer struct {
	Type    document.Type `json:"type"`
	Order   string        `json:"order"`
	Payload document.Hash `json:"payload_sha256"`
	File    string        `json:"file"`
	DryRun  bool          `json:"dry_run"`
}

func (d *desk) answerSigned(a signedAnswer, expires time.Time) error {
	return d.answer(a, "%s%s %s signed, valid until %s: %s", d.would(), a.Type, a.Order, expires.Format(time.DateOnly), a.File)
}

func readEnvelope(path string) (*document.Envelope, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e, err := document.ParseEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

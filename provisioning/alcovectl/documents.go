package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/provisioning/document"
)

func (d *desk) peopleCommand() *cobra.Command {
	var days int
	var out string
	sign := &cobra.Command{
		Use:   "sign [FILE]",
		Short: "Sign the list of staff and their passkeys",
		Long: "Signs {\"persons\": [{\"pseudonym\", \"roles\", \"credentials\"}]} from a file as the clinic's next people\n" +
			"document; without a file, the persons of the last one, or nobody.",
		Example: "  alcovectl people sign --keys clinic people.json",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE:    func(_ *cobra.Command, args []string) error { return d.peopleSign(args, days, out) },
	}
	sign.Flags().IntVar(&days, "days", 30, "days until it expires")
	sign.Flags().StringVar(&out, "out", "", "write a copy here")
	return group("people", "Say whom the clinic knows", "  alcovectl people sign --keys clinic people.json", sign)
}

func (d *desk) peopleSign(args []string, days int, out string) error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	if err := f.needTrust(); err != nil {
		return err
	}
	p := &document.People{Persons: []document.Person{}}
	if last, err := f.last(document.TypePeople, document.TargetAll); err != nil {
		return err
	} else if last != nil {
		p = last.(*document.People)
	}
	if len(args) == 1 {
		var body struct {
			Persons []document.Person `json:"persons"`
		}
		if err := readBody(args[0], &body); err != nil {
			return err
		}
		p.Persons = body.Persons
	}
	p.Header = f.header(document.TypePeople, document.TargetAll, days)
	e, err := f.sign(p, document.RolePeople)
	if err != nil {
		return err
	}
	a, err := f.keep(e, p, f.documentPath(p.Type(), p.Target), out)
	if err != nil {
		return err
	}
	return d.answerSigned(a, p.Expires)
}

// configBody is a configuration without its header, as people write it.
type configBody struct {
	CallOrigin string          `json:"call_origin"`
	Video      document.Video  `json:"video"`
	Audio      document.Audio  `json:"audio"`
	Policy     document.Policy `json:"policy"`
	Crisis     document.Crisis `json:"crisis"`
}

func defaultConfig() configBody {
	return configBody{
		Video:  document.Video{Codecs: []string{"vp8"}, Width: 1280, Height: 720, FPS: 30, MaxBitrate: 2_500_000},
		Audio:  document.Audio{Bitrate: 48_000},
		Policy: document.Policy{MinAssurance: map[string]int{"therapist": 2, "patient": 1, "guest": 1}},
	}
}

type configOptions struct {
	origin, target, out string
	days                int
}

func (d *desk) configCommand() *cobra.Command {
	var o configOptions
	sign := &cobra.Command{
		Use:   "sign [FILE]",
		Short: "Sign the configuration of the rooms",
		Long: "Signs a whole configuration: {\"call_origin\", \"video\", \"audio\", \"policy\", \"crisis\"} from a file;\n" +
			"without a file, what the last one said, or the defaults that --dry-run --json shows. --target names a\n" +
			"device that is configured apart.",
		Example: "  alcovectl config sign --keys clinic --call-origin https://call.clinic.example\n" +
			"  alcovectl config sign --keys clinic config.json\n" +
			"  alcovectl config sign --keys clinic --target d-0123456789abcdef room-1.json",
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error { return d.configSign(args, o) },
	}
	fl := sign.Flags()
	fl.StringVar(&o.origin, "call-origin", "", "origin of the call page, such as https://call.clinic.example")
	fl.StringVar(&o.target, "target", document.TargetAll, "all, or a device's id")
	fl.IntVar(&o.days, "days", 90, "days until it expires")
	fl.StringVar(&o.out, "out", "", "write a copy here")
	return group("config", "Say how rooms behave", "  alcovectl config sign --keys clinic config.json", sign)
}

func (d *desk) configSign(args []string, o configOptions) error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	if err := f.needTrust(); err != nil {
		return err
	}
	body := defaultConfig()
	if last, err := f.last(document.TypeConfig, o.target); err != nil {
		return err
	} else if last != nil {
		c := last.(*document.Config)
		body = configBody{c.CallOrigin, c.Video, c.Audio, c.Policy, c.Crisis}
	}
	if len(args) == 1 {
		body = configBody{} // a file is the whole configuration, never a patch
		if err := readBody(args[0], &body); err != nil {
			return err
		}
	}
	if o.origin != "" {
		body.CallOrigin = o.origin
	}
	c := &document.Config{
		Header:     f.header(document.TypeConfig, o.target, o.days),
		CallOrigin: body.CallOrigin, Video: body.Video, Audio: body.Audio, Policy: body.Policy, Crisis: body.Crisis,
	}
	if err := c.Validate(); err != nil {
		return err
	}
	e, err := f.sign(c, document.RoleConfig)
	if err != nil {
		return err
	}
	a, err := f.keep(e, c, f.documentPath(c.Type(), c.Target), o.out)
	if err != nil {
		return err
	}
	if d.dryRun && d.json {
		return d.encode(d.stdout, body)
	}
	return d.answerSigned(a, c.Expires)
}

func readBody(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := document.Decode(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// last is the newest document of the folder; nil when there is none.
func (f *folder) last(t document.Type, target string) (document.Document, error) {
	e, err := readEnvelope(f.documentPath(t, target))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := document.Inspect(e)
	if err == nil && d.Type() != t {
		err = fmt.Errorf("%s: %w", f.documentPath(t, target), document.ErrPayloadType)
	}
	return d, err
}

func (d *desk) documentsCommand() *cobra.Command {
	var address, target, out string
	push := &cobra.Command{
		Use:   "push [FILE…]",
		Short: "Bring signed documents to the hub",
		Long: "Sends the folder's newest documents, or the files given, to the hub, owner roots first. The hub stores\n" +
			"what verifies: the signature is the permission. The very first owner root is put in place at the hub\n" +
			"itself, with alcove-hub trust.",
		Example: "  alcovectl documents push --keys clinic\n  alcovectl documents push --keys clinic clinic/documents/roster.json",
		RunE:    func(c *cobra.Command, args []string) error { return d.push(c.Context(), args, address) },
	}
	get := &cobra.Command{
		Use:   "get TYPE",
		Short: "Fetch a document from the hub and verify it",
		Long: "Fetches owner-root, roster, people or config from the hub and verifies it with the folder's owner root.\n" +
			"Exit code 3: the hub gave out something that the clinic's rooms would refuse.",
		Example: "  alcovectl documents get --keys clinic roster --out roster.json",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return d.get(c.Context(), document.Type(args[0]), target, address, out)
		},
	}
	get.Flags().StringVar(&target, "target", document.TargetAll, "all, or a device's id")
	get.Flags().StringVar(&out, "out", "", "write it here")
	for _, c := range []*cobra.Command{push, get} {
		c.Flags().StringVar(&address, "hub", "", "address of the hub, unless it is the one last used")
	}
	return group("documents", "Bring documents to the hub, and back", "  alcovectl documents push --keys clinic", push, get)
}

type pushAnswer struct {
	Documents []pushed `json:"documents"`
	DryRun    bool     `json:"dry_run"`
}

type pushed struct {
	Type  document.Type `json:"type"`
	Order string        `json:"order"`
}

func (d *desk) push(ctx context.Context, files []string, address string) error {
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	h, err := f.hub(address)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		if files, err = f.newest(ctx, h); err != nil {
			return err
		}
	}
	a, words := pushAnswer{DryRun: d.dryRun, Documents: []pushed{}}, []string{}
	for _, path := range files {
		e, err := readEnvelope(path)
		if err != nil {
			return err
		}
		doc, err := document.Inspect(e)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !d.dryRun {
			if err := h.put(ctx, doc.Type(), e); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		a.Documents = append(a.Documents, pushed{doc.Type(), doc.Order().String()})
		words = append(words, fmt.Sprintf("%s %s", doc.Type(), doc.Order()))
	}
	if address != "" && f.state.Hub != address {
		f.state.Hub = address
		if err := f.saveState(); err != nil {
			return err
		}
	}
	return d.answer(a, "%sThe hub has: %s", d.would(), strings.Join(words, ", "))
}

// newest lists the owner roots that the hub lacks and the newest of the others.
func (f *folder) newest(ctx context.Context, h *hub) ([]string, error) {
	e, err := h.get(ctx, document.TypeOwnerRoot, document.TargetAll)
	if errors.Is(err, errNotYet) {
		return nil, fmt.Errorf("%w: the hub has no owner root; bring it %s and run alcove-hub trust there", errNotYet, f.rootPath(1))
	}
	if err != nil {
		return nil, err
	}
	root, err := document.Inspect(e)
	if err != nil {
		return nil, err
	}
	var files []string
	for n := int(root.Order().Root) + 1; n <= len(f.roots); n++ {
		files = append(files, f.rootPath(n))
	}
	others, err := filepath.Glob(f.path("documents", "*.json"))
	if err != nil {
		return nil, err
	}
	others = slices.DeleteFunc(others, func(p string) bool { return strings.HasPrefix(filepath.Base(p), "owner-root.") })
	return append(files, others...), nil
}

func (d *desk) get(ctx context.Context, t document.Type, target, address, out string) error {
	if !slices.Contains(document.Types(), t) {
		return fmt.Errorf("%w: the types are owner-root, roster, people, config", errUsage)
	}
	f, err := d.openFolder()
	if err != nil {
		return err
	}
	h, err := f.hub(address)
	if err != nil {
		return err
	}
	e, err := h.get(ctx, t, target)
	if err != nil {
		return err
	}
	doc, err := f.verify(e)
	if err != nil {
		return fmt.Errorf("the hub's %s: %w", t, err)
	}
	if doc.Type() != t {
		return fmt.Errorf("the hub's %s: %w", t, document.ErrPayloadType)
	}
	if out != "" {
		if err := f.write(out, e); err != nil {
			return err
		}
	}
	return d.answer(doc, "%s %s verified: sha256 %s", t, doc.Order(), e.PayloadHash())
}

// verify judges an envelope with the folder's newest owner root.
func (f *folder) verify(e *document.Envelope) (document.Document, error) {
	t, err := e.Type()
	if err != nil {
		return nil, err
	}
	switch t {
	case document.TypeRoster:
		return verified(document.Verify[document.Roster](e, f.trust, document.State{}, now()))
	case document.TypePeople:
		return verified(document.Verify[document.People](e, f.trust, document.State{}, now()))
	case document.TypeConfig:
		return verified(document.Verify[document.Config](e, f.trust, document.State{}, now()))
	}
	for _, known := range f.roots {
		if known.PayloadHash() == e.PayloadHash() {
			return document.Inspect(e)
		}
	}
	next, err := f.trust.Next(e, now())
	if err != nil {
		return nil, err
	}
	return next.Root(), nil
}

func verified[D document.Document](d D, err error) (document.Document, error) {
	if err != nil {
		return nil, err
	}
	return d, nil
}

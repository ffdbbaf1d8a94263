package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The law of the house: who may import whom, one row each, with its reason.
//
// Rows about the standard library are about direct imports of our own packages (what a module does with it
// is the module's business); rows about modules and about our own folders can be transitive, per main.
// Test files are not bound by any row.

// module is the path that all our packages begin with.
const module = "github.com/alcove-room/alcove"

// A reach says how far a row looks.
type reach int

const (
	// direct: the import declarations of the packages that the row is about.
	direct reach = iota
	// linked: everything that ends up in the programs that the row is about.
	linked
)

// A row forbids arrows. Patterns are import paths; a trailing "/..." takes in the path itself and
// everything below it. A pattern that begins with "./" is relative to the module.
type row struct {
	from  []string // who
	not   []string // may not reach these
	but   []string // apart from these
	reach reach
	by    []string // reach linked: an arrow that starts in one of these packages is allowed
	why   string
	later bool // the packages in from do not exist yet
}

const (
	mainAlcoved = "./daemon/alcoved"
	mainHub     = "./provisioning/alcove-hub"
	mainCtl     = "./provisioning/alcovectl"
	mainCapture = "./mediacap/alcove-capture"
)

// staticMains are built once, with CGO_ENABLED=0, and run on any Debian release.
var staticMains = []string{mainAlcoved, mainHub, mainCtl}

var mains = append(slices.Clone(staticMains), mainCapture)

const tinkV1 = "github.com/google/tink/go/..."

var law = []row{
	{
		from: []string{"./daemon/e2ee/..."},
		not:  []string{"net/...", "os/...", "github.com/pion/...", "github.com/livekit/...", "log/...", "io/fs"},
		why:  "frame encryption and key agreement are functions of bytes: whoever reviews them need not look for sockets, files or logs",
	},
	{
		from: []string{"./daemon/e2ee"},
		not:  []string{"time"},
		why:  "frame encryption has no clock: the same input gives the same decision at any time",
	},
	{
		from: []string{"./mediacap"},
		not:  []string{"net/...", "os/exec", "C", "github.com/tink-crypto/...", "github.com/pion/...", "./daemon/...", "./provisioning/..."},
		why:  "the wire between capture and daemon is a format: both sides hold it, so it can hold neither devices, network nor keys",
	},
	{
		from: []string{"./mediacap/..."}, but: []string{"./mediacap/..."},
		not: []string{"./...", "net/http/...", "crypto/tls", "github.com/tink-crypto/...", "github.com/livekit/..."},
		why: "who has the devices has no keys and speaks to nobody but the daemon",
	},
	{
		from: []string{mainCapture}, reach: linked, but: []string{"./mediacap/..."},
		not: []string{"./...", "github.com/tink-crypto/...", "github.com/livekit/..."},
		why: "the same, for all that is linked into the capture process",
	},
	{
		from: []string{mainAlcoved, mainHub, mainCtl}, reach: linked, but: []string{"./mediacap"},
		not: []string{"./mediacap/...", "github.com/pion/mediadevices/..."},
		why: "who has keys has no devices and no C code: only the wire's format is shared",
	},
	{
		from: []string{"./..."}, but: []string{},
		not: []string{"github.com/livekit/livekit-server/..."},
		by:  []string{"./provisioning/hub/sfu/..."},
		why: "the SFU is replaceable by an external LiveKit: one package knows that it can be a child",
	},
	{
		from: []string{mainAlcoved, mainCtl, mainCapture}, reach: linked,
		not: []string{"github.com/livekit/livekit-server/..."},
		why: "the SFU runs in the hub alone",
	},
	{
		from: []string{mainHub}, reach: linked,
		not: []string{"./daemon", "./daemon/e2ee", "./daemon/session/...", "./daemon/screen/...", "./daemon/backup/...", "./daemon/update/...", "./mediacap/..."},
		why: "the hub holds no key that opens media: it does not even hold the code",
	},
	{
		from: []string{mainCtl}, reach: linked,
		not: []string{"github.com/pion/...", "github.com/livekit/...", "./daemon", "./daemon/session/...", "./mediacap/..."},
		why: "the offline keys live where alcovectl runs: as little code as possible beside them",
	},
	{
		from: []string{"./provisioning/..."},
		not:  []string{"./mediacap/...", "./daemon/session/...", "./daemon/alcoved"},
		why:  "provisioning knows devices by their documents, not by what they capture",
	},
	{
		from: []string{"./daemon/durable", "./daemon/audit", "./daemon/keystore"},
		not:  []string{"./daemon", "./daemon/session/...", "./daemon/e2ee/...", "./provisioning", "./provisioning/hub/...", "./mediacap/...", "github.com/pion/...", "github.com/livekit/..."},
		why:  "what everything stands on does not stand on anything of it",
	},
	{
		from: []string{"./daemon/session/..."},
		not:  []string{"./provisioning/hub/...", "./daemon", "./daemon/screen/...", "./daemon/update/...", "./daemon/backup/...", "os/exec"},
		why:  "membership of one session: it is handed what it needs",
	},
	{
		from: []string{"./daemon/update/..."}, later: true,
		not: []string{"./daemon/session/...", "./daemon/e2ee/...", "./mediacap/..."},
		why: "the updater asks whether a session runs, through an interface; it has no part in one",
	},
	{
		from: []string{"./daemon/backup/..."}, later: true,
		not: []string{"./daemon/session/...", "./mediacap/alcove-capture"},
		why: "recordings leave the room after the session; a restore must not need one",
	},
	{
		from: []string{"./provisioning/document/..."},
		not:  []string{"net", "net/http/...", "os/...", "./daemon/...", "./provisioning", "./provisioning/hub/...", "math/rand/..."},
		why:  "verdicts about documents are pure functions: what a document is worth cannot depend on where it is read",
	},
	{
		from: []string{"./..."}, not: []string{"crypto/aes", "crypto/cipher", "crypto/rc4", "crypto/des"},
		why: "content is encrypted by Tink: no nonce and no mode is chosen by hand",
	},
	{
		from: []string{"./..."}, not: []string{
			"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset/...",
			"github.com/tink-crypto/tink-go/v2/testkeyset/...",
		},
		why: "no key is ever in clear outside Tink's handles, not even in a test mode",
	},
	{
		from: mains, reach: linked, not: []string{tinkV1},
		why: "Tink v1 is unmaintained and registers the same protobuf names as v2: both in one program panic at start",
	},
	{
		from: []string{"./..."}, not: []string{"net/http/pprof", "expvar"},
		why: "no port shows memory: pprof and expvar register themselves on the default mux at import",
	},
	{
		from: mains, reach: linked, not: []string{"net/http/pprof"},
		by:  []string{"github.com/livekit/livekit-server/..."},
		why: "livekit-server imports pprof for its development mode and is the exception; the hub serves no default mux",
	},
	{
		from: mains, reach: linked, not: []string{
			"github.com/pion/mediadevices/pkg/codec/openh264/...",
			"github.com/pion/mediadevices/pkg/codec/opus/...",
			"github.com/pion/mediadevices/pkg/codec/x264/...",
		},
		why: "they bring archives that somebody compiled, and x264 is GPL: codecs are Debian's libraries",
	},
	{
		from: []string{"./daemon/e2ee/...", "./daemon/keystore/...", "./daemon/audit/...", "./provisioning/..."},
		not:  []string{"math/rand", "math/rand/v2"},
		why:  "what is random there is a key, a nonce or an invitation: crypto/rand",
	},
	{
		from: []string{"./..."}, not: []string{"unsafe", "C"},
		by:  []string{"./mediacap/..."},
		why: "memory is handled by hand only where C libraries encode, in the process that has no keys",
	},
	{
		from: []string{"./..."}, not: []string{"log", "math/rand"},
		why: "slog is injected; the global logger and the global, seedable generator belong to nobody",
	},
	{
		from: []string{"./..."}, not: []string{"github.com/coreos/go-systemd/..."},
		by:  []string{"./systemd/..."},
		why: "one package speaks to the service manager",
	},
	{
		from: mains, reach: linked, not: []string{"./daemon/e2e/...", "./provisioning/web/webtest/..."},
		why: "what drives the tests is in no program",
	},
	{
		from: []string{"./..."}, not: []string{mainAlcoved, mainHub, mainCtl, mainCapture},
		why: "mains are leaves",
	},
}

// A pkg is one package of the build, as `go list -json` says it.
type pkg struct {
	ImportPath     string
	Name           string
	Dir            string
	Standard       bool
	Imports        []string
	CgoFiles       []string
	GoFiles        []string
	IgnoredGoFiles []string
	CgoPkgConfig   []string
	CgoLDFLAGS     []string
	Module         *struct {
		Path, Version, Dir string
		Main               bool
		Replace            *struct{ Path, Version, Dir string }
	}
	Error *struct{ Err string }
}

// A graph is a build's packages by import path.
type graph map[string]*pkg

func full(pattern string) string {
	if pattern == "./..." {
		return module + "/..."
	}
	if rest, ok := strings.CutPrefix(pattern, "./"); ok {
		return module + "/" + rest
	}
	return pattern
}

func matches(pattern, importPath string) bool {
	pattern = full(pattern)
	if stem, ok := strings.CutSuffix(pattern, "/..."); ok {
		return importPath == stem || strings.HasPrefix(importPath, stem+"/")
	}
	return importPath == pattern
}

func matchesAny(patterns []string, importPath string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, importPath) })
}

// match returns the packages of g that one of the patterns names, sorted.
func (g graph) match(patterns []string) []string {
	var found []string
	for p := range g {
		if matchesAny(patterns, p) {
			found = append(found, p)
		}
	}
	slices.Sort(found)
	return found
}

// violations says which arrows of g the row forbids: "from -> to", for linked rows with the way there.
func (r row) violations(g graph) []string {
	var bad []string
	for _, from := range g.match(r.from) {
		if r.reach == direct && matchesAny(r.by, from) {
			continue
		}
		bad = append(bad, r.walk(g, from)...)
	}
	return bad
}

// walk follows the arrows from one package, breadth first so that the way shown is the shortest.
func (r row) walk(g graph, start string) []string {
	var bad []string
	way := map[string]string{start: start}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if g[at] == nil {
			continue
		}
		for _, to := range g[at].Imports {
			if matchesAny(r.not, to) && !matchesAny(r.but, to) && !(r.reach == linked && matchesAny(r.by, at)) {
				bad = append(bad, way[at]+" -> "+to)
			}
			if _, seen := way[to]; !seen && r.reach == linked {
				way[to] = way[at] + " -> " + to
				queue = append(queue, to)
			}
		}
	}
	return bad
}

var root = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	return filepath.Dir(strings.TrimSpace(string(out))), err
})

func repo(t testing.TB) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	return dir
}

// list loads the graph of everything that the patterns need, as a build with or without cgo sees it.
func list(dir string, cgo bool, patterns ...string) (graph, error) {
	args := append([]string{"list", "-e", "-deps", "-json=ImportPath,Name,Dir,Standard,Imports,CgoFiles,GoFiles,IgnoredGoFiles,CgoPkgConfig,CgoLDFLAGS,Module,Error"}, patterns...)
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	g := graph{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return g, nil
		} else if err != nil {
			return nil, fmt.Errorf("read go list's answer: %w", err)
		}
		g[p.ImportPath] = &p
	}
}

// graphs are loaded once per run: a build without cgo, one with it, and both laid over each other.
var graphs = sync.OnceValues(func() (*struct{ pure, cgo, both graph }, error) {
	dir, err := root()
	if err != nil {
		return nil, err
	}
	gs := &struct{ pure, cgo, both graph }{both: graph{}}
	if gs.pure, err = list(dir, false, "./..."); err != nil {
		return nil, err
	}
	if gs.cgo, err = list(dir, true, "./..."); err != nil {
		return nil, err
	}
	for _, g := range []graph{gs.pure, gs.cgo} {
		for name, p := range g {
			q := *p
			if known := gs.both[name]; known != nil {
				q.Imports = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(known.Imports), p.Imports...))))
			}
			gs.both[name] = &q
		}
	}
	return gs, nil
})

func load(t *testing.T) (pure, cgo, both graph) {
	t.Helper()
	gs, err := graphs()
	if err != nil {
		t.Fatal(err)
	}
	return gs.pure, gs.cgo, gs.both
}

func TestLayers(t *testing.T) {
	_, _, both := load(t)
	for _, r := range law {
		name := fmt.Sprintf("%s may not reach %s", strings.Join(r.from, ","), strings.Join(r.not, ","))
		found := both.match(r.from)
		switch {
		case r.later && len(found) > 0:
			t.Errorf("%s: %v exists now, so the row is no longer for later", name, found)
		case !r.later && len(found) == 0:
			t.Errorf("%s: there is no such package, so the row says nothing", name)
		}
		for _, v := range r.violations(both) {
			t.Errorf("%s\n\tbecause: %s", strings.ReplaceAll(v, module, "."), r.why)
		}
	}
}

// example makes one import path that the pattern matches: the path itself, or one below it.
func example(pattern string, below bool) string {
	pattern = full(pattern)
	if stem, ok := strings.CutSuffix(pattern, "/..."); ok {
		if below {
			return stem + "/example"
		}
		return stem
	}
	return pattern
}

// TestEveryRowCanFail breaks each row in a made-up graph, once for each pair of patterns, and keeps each
// exception once.
func TestEveryRowCanFail(t *testing.T) {
	broken := 0
	for i, r := range law {
		if r.why == "" {
			t.Errorf("row %d has no reason", i)
		}
		for _, fp := range r.from {
			for _, np := range r.not {
				// A pattern may be wide ("./...") while an exception takes a part of it out again:
				// the example must stand outside the exceptions.
				from, to := outside(fp, r.by), outside(np, r.but)
				if from == "" || to == "" {
					t.Errorf("row %d: %s -> %s: the exceptions leave nothing of it", i, fp, np)
					continue
				}
				g := graph{from: {ImportPath: from, Imports: []string{to}}, to: {ImportPath: to}}
				if len(r.violations(g)) == 0 {
					t.Errorf("row %d does not see %s -> %s", i, from, to)
				}
				through := graph{from: {Imports: []string{"example.org/between"}}, "example.org/between": {Imports: []string{to}}}
				if got := len(r.violations(through)) > 0; got != (r.reach == linked) {
					t.Errorf("row %d: an arrow through a third package seen: %v, wanted %v", i, got, r.reach == linked)
				}
				broken++
			}
		}
		for _, except := range r.but {
			from, to := outside(r.from[0], r.by), example(except, true)
			if from == to {
				continue
			}
			if bad := r.violations(graph{from: {Imports: []string{to}}}); len(bad) > 0 {
				t.Errorf("row %d forbids its exception: %v", i, bad)
			}
		}
		for _, by := range r.by {
			from, carrier, to := outside(r.from[0], r.by), example(by, true), outside(r.not[0], r.but)
			g := graph{from: {Imports: []string{carrier}}, carrier: {Imports: []string{to}}}
			if bad := r.violations(g); len(bad) > 0 {
				t.Errorf("row %d forbids its exception: %v", i, bad)
			}
		}
	}
	t.Logf("%d rows, broken in %d ways", len(law), broken)
}

// outside returns an example of the pattern that none of the exceptions takes out, or "".
func outside(pattern string, exceptions []string) string {
	for _, below := range []bool{true, false} {
		if e := example(pattern, below); !matchesAny(exceptions, e) {
			return e
		}
	}
	return ""
}

// pureTwins hold C in a build with cgo and have a twin without it, which is the one that we build.
var pureTwins = map[string]string{
	"github.com/mackerelio/go-osstat/loadavg": "livekit-server's load average: getloadavg(3) or /proc/loadavg",
}

// TestStaticMains asserts that no package outside the standard library brings C into the programs that are
// built once: neither in a build without cgo, which has to succeed, nor hidden in one with it.
func TestStaticMains(t *testing.T) {
	for _, main := range staticMains {
		for _, cgo := range []bool{false, true} {
			g, err := list(repo(t), cgo, main)
			if err != nil {
				t.Fatal(err)
			}
			for _, bad := range c(g) {
				t.Errorf("%s, cgo %v: %s", main, cgo, bad)
			}
		}
	}
}

// c says which packages of the graph hold C code, or cannot be built.
func c(g graph) []string {
	var bad []string
	for _, p := range g {
		switch {
		case p.Error != nil:
			bad = append(bad, p.ImportPath+": "+p.Error.Err)
		case !p.Standard && len(p.CgoFiles) > 0 && pureTwins[p.ImportPath] == "":
			bad = append(bad, p.ImportPath+" holds C: "+strings.Join(p.CgoFiles, " "))
		}
	}
	slices.Sort(bad)
	return bad
}

func TestStaticMainsCanFail(t *testing.T) {
	g := graph{
		"net":           {ImportPath: "net", Standard: true, CgoFiles: []string{"cgo_linux.go"}},
		"example.org/c": {ImportPath: "example.org/c", CgoFiles: []string{"c.go"}},
		"example.org/e": {ImportPath: "example.org/e", Error: &struct{ Err string }{"build constraints exclude all Go files"}},
	}
	if bad := c(g); len(bad) != 2 {
		t.Errorf("got %q, want the two packages of example.org", bad)
	}
}

// TestMains asserts that the programs are the ones in the table; a program that is not there would be bound
// by no row. What drives tests and figures is not a program that anybody installs.
func TestMains(t *testing.T) {
	_, _, both := load(t)
	var want []string
	for _, m := range mains {
		want = append(want, full(m))
	}
	for name, p := range both {
		if p.Name == "main" && matches("./...", name) && !matches("./daemon/e2e/...", name) && !slices.Contains(want, name) {
			t.Errorf("%s is a program that the law does not know", name)
		}
	}
	for _, m := range want {
		if p := both[m]; p == nil || p.Name != "main" {
			t.Errorf("%s is no program", m)
		}
	}
}

// A call is a function that nobody outside tests may mention.
type call struct {
	pkg, name string
	by        []string // packages that may
	in        []string // files that may, from the top of the clone
	why       string
}

var calls = []call{
	{
		pkg: "github.com/livekit/server-sdk-go/v2", name: "DeriveKeyFromBytes",
		why: "it hands out a raw AES key; keys come out of Tink's PrfBasedDeriver",
	},
	{
		pkg: "github.com/livekit/server-sdk-go/v2", name: "DeriveKeyFromString",
		why: "it makes a key of a password",
	},
	{
		pkg: "os", name: "Rename", by: []string{"./daemon/durable", "./daemon/e2e/..."},
		in:  []string{"daemon/control.go"}, // a socket, which no power cut leaves anyway
		why: "a rename without fsync of file and folder may be gone after a power cut: daemon/durable",
	},
	{
		pkg: "os", name: "WriteFile", by: []string{"./daemon/durable", "./daemon/e2e/..."},
		why: "a file that matters is written by daemon/durable, whole or not at all",
	},
}

// mentions returns where the parsed file mentions one of the banned functions.
func mentions(fset *token.FileSet, file *ast.File, importPath string) []string {
	local := map[string]string{} // name in this file -> import path
	for _, spec := range file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if strings.HasPrefix(name, "v") && strings.Trim(name[1:], "0123456789") == "" {
			name = path.Base(path.Dir(p))
		}
		if p == "github.com/livekit/server-sdk-go/v2" {
			name = "lksdk" // its package clause differs from its path
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		local[name] = p
	}
	name := strings.TrimPrefix(importPath, module+"/") + "/" + filepath.Base(fset.Position(file.Pos()).Filename)
	var bad []string
	ast.Inspect(file, func(n ast.Node) bool {
		var ident *ast.Ident
		from := local["."]
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			ident, from = n.Sel, local[x.Name]
		case *ast.Ident:
			ident = n
		default:
			return true
		}
		for _, c := range calls {
			if from == c.pkg && ident.Name == c.name && !matchesAny(c.by, importPath) && !slices.Contains(c.in, name) {
				bad = append(bad, fmt.Sprintf("%s: %s.%s\n\tbecause: %s", fset.Position(ident.Pos()), path.Base(c.pkg), c.name, c.why))
			}
		}
		return true
	})
	return slices.Compact(bad)
}

func TestCalls(t *testing.T) {
	_, _, both := load(t)
	files := 0
	for _, name := range both.match([]string{"./..."}) {
		p := both[name]
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			parsed, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Errorf("parse: %v", err)
				continue
			}
			files++
			for _, bad := range mentions(fset, parsed, name) {
				t.Error(bad)
			}
		}
	}
	if files == 0 {
		t.Error("no file was looked at")
	}
}

func TestCallsCanFail(t *testing.T) {
	for _, c := range calls {
		for _, src := range []string{
			fmt.Sprintf("package p\nimport other %q\nvar _ = other.%s\n", c.pkg, c.name),
			fmt.Sprintf("package p\nimport . %q\nvar _ = %s\n", c.pkg, c.name),
		} {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, "p.go", src, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if len(mentions(fset, file, module+"/example")) != 1 {
				t.Errorf("not seen:\n%s", src)
			}
			for _, by := range c.by {
				if len(mentions(fset, file, full(by))) != 0 {
					t.Errorf("%s is forbidden what it may", by)
				}
			}
		}
	}
	const plain = "package p\nimport lksdk \"github.com/livekit/server-sdk-go/v2\"\nvar _ = lksdk.NewRoom\nfunc DeriveKeyFromBytes() {}\n"
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", plain, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if bad := mentions(fset, file, module+"/example"); len(bad) != 0 {
		t.Errorf("harmless code is called %q", bad)
	}
}

// TestFolders asserts the five folders, and that none gets a drawer for everything.
func TestFolders(t *testing.T) {
	top := []string{"daemon", "mediacap", "provisioning", "image", "systemd"}
	drawers := []string{"cmd", "pkg", "util", "utils", "common", "helper", "helpers", "misc"}
	dir := repo(t)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		first, _, _ := strings.Cut(rel, string(filepath.Separator))
		switch {
		case d.IsDir() && (rel != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || rel == "build"):
			return filepath.SkipDir
		case d.IsDir() && slices.Contains(drawers, d.Name()):
			t.Errorf("%s: no drawer for everything", rel)
		case strings.HasSuffix(rel, ".go") && !slices.Contains(top, first):
			t.Errorf("%s: code outside the five folders", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPackageComments asserts that each package has exactly one package comment: it is the contract, and a
// contract stands in one place.
func TestPackageComments(t *testing.T) {
	_, cgo, _ := load(t)
	for _, name := range cgo.match([]string{"./..."}) {
		p := cgo[name]
		var in []string
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles) {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Errorf("parse: %v", err)
				continue
			}
			if parsed.Doc != nil {
				in = append(in, file)
			}
		}
		if len(in) != 1 && len(p.GoFiles)+len(p.CgoFiles) > 0 {
			t.Errorf("%s has %d package comments %v, want one", name, len(in), in)
		}
	}
}

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The programs are built as .ci/build does, so that only linking is left to do.
var packages = map[string]struct{ dir, cgo string }{
	"alcoved":        {"./daemon/alcoved", "0"},
	"alcove-hub":     {"./provisioning/alcove-hub", "0"},
	"alcovectl":      {"./provisioning/alcovectl", "0"},
	"alcove-capture": {"./mediacap/alcove-capture", "1"},
}

var binaries struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		_ = os.RemoveAll(binaries.dir)
	}
	os.Exit(code)
}

// built returns the folder of the programs.
func built(t *testing.T) string {
	t.Helper()
	binaries.Do(func() {
		if binaries.dir, binaries.err = os.MkdirTemp("", "mangen"); binaries.err != nil {
			return
		}
		for name, p := range packages {
			cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=test", "-o", filepath.Join(binaries.dir, name), p.dir)
			cmd.Dir = filepath.Join("..", "..", "..")
			cmd.Env = append(os.Environ(), "CGO_ENABLED="+p.cgo)
			if out, err := cmd.CombinedOutput(); err != nil {
				binaries.err = errors.Join(err, errors.New(string(out)))
				return
			}
		}
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	return binaries.dir
}

var (
	listed  = regexp.MustCompile(`(?ms)^Available Commands:\n(.*?)\n\n`)
	command = regexp.MustCompile(`(?m)^  (\S+)`)
	option  = regexp.MustCompile(`(?m)^ +(?:-\w, )?-?(-[a-z][a-z-]*)\b`)
)

// TestEveryCommandHasItsPage reads each program's help once more, in another way, and looks for what it says in the
// pages.
func TestEveryCommandHasItsPage(t *testing.T) {
	bin, out := built(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(out, "gone.1"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := run(bin, out, &said); err != nil {
		t.Fatal(err)
	}
	var want []string
	var visit func(path []string)
	visit = func(path []string) {
		help, err := exec.Command(filepath.Join(bin, path[0]), append(slices.Clone(path[1:]), "--help")...).Output()
		if err != nil {
			t.Fatalf("%v: %v", path, err)
		}
		name := strings.Join(path, "-")
		want = append(want, name+".1")
		checkPage(t, filepath.Join(out, name+".1"), string(help))
		if m := listed.FindStringSubmatch(string(help)); m != nil {
			for _, c := range command.FindAllStringSubmatch(m[1], -1) {
				if c[1] != "completion" && c[1] != "help" {
					visit(append(slices.Clone(path), c[1]))
				}
			}
		}
	}
	for name := range packages {
		visit([]string{name})
	}
	var got []string
	files, err := os.ReadDir(out)
	for _, f := range files {
		got = append(got, f.Name())
	}
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("pages %q, commands %q, %v", got, want, err)
	}
	if len(want) < 40 {
		t.Errorf("only %d commands were found", len(want))
	}
}

func checkPage(t *testing.T, file, help string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return
	}
	page := string(raw)
	parts := []string{"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS"}
	if strings.Contains(help, "\nExamples:\n") || strings.HasSuffix(file, "alcove-capture.1") {
		parts = append(parts, "EXAMPLES")
	}
	for _, part := range parts {
		if _, after, ok := strings.Cut(page, ".SH "+part+"\n"); !ok || strings.HasPrefix(after, ".SH") || strings.TrimSpace(after) == "" {
			t.Errorf("%s has no %s", filepath.Base(file), part)
		}
	}
	_, flags, _ := strings.Cut(help, "\nFlags:\n")
	if _, ours, ok := strings.Cut(help, "\nOptions:\n"); ok {
		flags = ours
	}
	for _, m := range option.FindAllStringSubmatch(flags, -1) {
		if !strings.Contains(page, escape(m[1])) {
			t.Errorf("%s does not name %s", filepath.Base(file), m[1])
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !regexp.MustCompile(`^\.(TH|SH|PP|B|BR|TP|RS|RE|nf|fi|br)\b`).MatchString(line) {
			t.Errorf("%s: roff would read this as a request: %s", filepath.Base(file), line)
		}
	}
}

// TestExitStatus runs the programs into what the pages say.
func TestExitStatus(t *testing.T) {
	bin, none := built(t), filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		program string
		want    int
		args    []string
	}{
		{"alcoved", 0, []string{"--version"}},
		{"alcoved", 1, []string{"serve", "--config", none}},
		{"alcoved", 3, []string{"room", "status", "--socket", none}},
		{"alcove-hub", 0, []string{"--version"}},
		{"alcove-hub", 1, []string{"serve", "--config", none}},
		{"alcovectl", 0, []string{"--help"}},
		{"alcovectl", 1, []string{"root", "show", "--keys", none}},
		{"alcovectl", 2, nil},
		{"alcove-capture", 0, []string{"--help"}},
		{"alcove-capture", 1, []string{"--source=test", "--socket", none}},
		{"alcove-capture", 2, []string{"--fps", "0"}},
	} {
		cmd := exec.Command(filepath.Join(bin, c.program), c.args...)
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != c.want {
			t.Errorf("%s %q: %d, not %d", c.program, c.args, got, c.want)
		}
	}
}

const cobraHelp = `Does a thing. And more
of it.

Exit codes: 0 done,
1 not.

Usage:
  prog verb [flags]
  prog verb [command]

Examples:
  prog verb --x 'a'

  .hidden \n

Available Commands:
  below       a command below
  help        Help about any command

Flags:
      --long string   first line
                      and the second
  -x, --x             short

Use "prog verb [command] --help" for more information about a command.
`

func TestParse(t *testing.T) {
	p, err := parse([]string{"prog", "verb"}, cobraHelp)
	if err != nil {
		t.Fatal(err)
	}
	if p.short != "Does a thing" || p.exit != "0 done, 1 not." || len(p.synopsis) != 2 || !slices.Equal(p.commands, []item{{"below", "a command below"}}) ||
		!slices.Equal(p.description, []string{"Does a thing. And more of it."}) {
		t.Errorf("%+v", p)
	}
	if !slices.Equal(p.options, []item{{"--long string", "first line and the second"}, {"-x, --x", "short"}}) {
		t.Errorf("options %q", p.options)
	}
	if !slices.Equal(p.examples, []string{"prog verb --x 'a'", "", ".hidden \\n"}) {
		t.Errorf("examples %q", p.examples)
	}
	roff := string(p.roff())
	for _, want := range []string{"prog verb \\-\\-x \\(aqa\\(aq\n\n\\&.hidden \\en\n", ".SH EXIT STATUS\n0 done, 1 not.\n", "prog\\-verb \\- Does a thing\n"} {
		if !strings.Contains(roff, want) {
			t.Errorf("%q is not in\n%s", want, roff)
		}
	}
	for _, bad := range []string{"", "words without usage\n", "x\n\nUsage:\n  x\n\nNovelties:\n  y\n", "\nUsage:\n  x\n"} {
		if _, err := parse([]string{"x"}, bad); err == nil {
			t.Errorf("%q was taken for a help", bad)
		}
	}
}

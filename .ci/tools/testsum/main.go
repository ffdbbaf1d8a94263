// Command testsum reads what test runners print, shows what a person needs of it, and counts.
//
//	go test -json ./... | testsum -out FILE -skips .ci/skips go
//	testsum -out FILE -skips .ci/skips node < output of node --test
//	testsum total FILE...
//
// A count file holds one line, "passed failed skipped". Only leaves are counted: a test with subtests is its
// subtests. A package that does not build, or ends without saying how a test went, counts as one failure, so
// that nothing that was meant to run can vanish. A skipped test fails unless the list of skips names it.
//
// The last line of total is "N passed, N failed, N skipped"; the exit code is 1 when anything failed, and
// when nothing at all was tested.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const modulePrefix = "github.com/alcove-room/alcove/"

type count struct{ passed, failed, skipped int }

func main() {
	out := flag.String("out", "", "write the count to this `file`")
	skipFile := flag.String("skips", "", "`file` with the skips that are allowed")
	flag.Parse()
	if err := run(*out, *skipFile, flag.Args(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("not everything passed")

func run(out, skipFile string, args []string, in io.Reader, w io.Writer) error {
	if len(args) == 0 {
		return errors.New("say what to read: go, node or total")
	}
	if args[0] == "total" {
		return total(args[1:], w)
	}
	allowed := skips{}
	if skipFile != "" {
		f, err := os.Open(skipFile)
		if err != nil {
			return fmt.Errorf("read the list of skips: %w", err)
		}
		defer f.Close()
		if allowed, err = readSkips(f); err != nil {
			return fmt.Errorf("read the list of skips: %w", err)
		}
	}
	var n count
	var err error
	switch args[0] {
	case "go":
		n, err = goTests(in, w, allowed)
	case "node":
		n, err = nodeTests(in, w, allowed)
	default:
		return fmt.Errorf("%q: say go, node or total", args[0])
	}
	if err != nil {
		return fmt.Errorf("read the results: %w", err)
	}
	if out != "" {
		line := fmt.Sprintf("%d %d %d\n", n.passed, n.failed, n.skipped)
		if err := os.WriteFile(out, []byte(line), 0o644); err != nil {
			return fmt.Errorf("write the count: %w", err)
		}
	}
	fmt.Fprintf(w, "%s: %d passed, %d failed, %d skipped\n", args[0], n.passed, n.failed, n.skipped)
	if n.failed > 0 || n.passed == 0 {
		return errFailed
	}
	return nil
}

func total(files []string, w io.Writer) error {
	var n count
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var c count
		if _, err := fmt.Sscan(string(b), &c.passed, &c.failed, &c.skipped); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		n.passed, n.failed, n.skipped = n.passed+c.passed, n.failed+c.failed, n.skipped+c.skipped
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", n.passed, n.failed, n.skipped)
	if n.failed > 0 || n.passed == 0 {
		return errFailed
	}
	return nil
}

// skips maps the name of a test, as "package.Test" with * for any run of characters but /, to the reason
// why it may be skipped.
type skips map[string]string

func readSkips(r io.Reader) (skips, error) {
	s := skips{}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		if reason = strings.TrimSpace(reason); reason == "" {
			return nil, fmt.Errorf("%q has no reason", name)
		}
		if _, err := path.Match(name, ""); err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		s[name] = reason
	}
	return s, nil
}

func (s skips) reason(name string) string {
	for pattern, reason := range s {
		if ok, _ := path.Match(pattern, name); ok {
			return reason
		}
	}
	return ""
}

// An event is one line of go test -json (go doc test2json).
type event struct {
	Action, Package, ImportPath, Test, Output, FailedBuild string
	Elapsed                                                float64
}

// A testRun is what is known of one test while its package runs.
type testRun struct {
	output   []string
	parent   bool // has subtests
	badChild bool // one of them failed
	action   string
}

// A pack is one package's tests.
type pack struct {
	tests  map[string]*testRun
	order  []string
	output []string
}

func (p *pack) test(name string) *testRun {
	if p.tests[name] == nil {
		p.tests[name] = &testRun{}
		p.order = append(p.order, name)
	}
	return p.tests[name]
}

func goTests(in io.Reader, w io.Writer, allowed skips) (count, error) {
	var n count
	packs := map[string]*pack{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(w, lines.Text()) // the go command's own words
			continue
		}
		if e.Action == "build-output" {
			fmt.Fprint(w, e.Output)
			continue
		}
		if e.Package == "" {
			continue
		}
		p := packs[e.Package]
		if p == nil {
			p = &pack{tests: map[string]*testRun{}}
			packs[e.Package] = p
		}
		if e.Test == "" {
			if p.end(e, w, &n, allowed) {
				delete(packs, e.Package)
			}
			continue
		}
		p.record(e)
	}
	for name, p := range packs {
		fmt.Fprintf(w, "FAIL %s: ended without a result\n%s", short(name), strings.Join(p.output, ""))
		n.failed++
	}
	return n, lines.Err()
}

func (p *pack) record(e event) {
	t := p.test(e.Test)
	switch e.Action {
	case "run":
		if i := strings.LastIndex(e.Test, "/"); i >= 0 {
			p.test(e.Test[:i]).parent = true
		}
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		t.action = e.Action
		if i := strings.LastIndex(e.Test, "/"); i >= 0 && e.Action == "fail" {
			p.test(e.Test[:i]).badChild = true
		}
	}
}

// end handles an event about the package as a whole, and says whether it was the last one.
func (p *pack) end(e event, w io.Writer, n *count, allowed skips) bool {
	if e.Action == "output" {
		p.output = append(p.output, e.Output)
	}
	if !slices.Contains([]string{"pass", "fail", "skip"}, e.Action) {
		return false
	}
	before := n.failed
	for _, name := range p.order {
		p.tests[name].tally(short(e.Package)+"."+name, e.Action, w, n, allowed)
	}
	if e.Action == "fail" && n.failed == before {
		fmt.Fprintf(w, "FAIL %s\n%s", short(e.Package), strings.Join(p.output, ""))
		n.failed++
	}
	if len(p.order) > 0 || e.Action == "fail" {
		fmt.Fprintf(w, "%-4s %s %.1f s\n", e.Action, short(e.Package), e.Elapsed)
	}
	return true
}

func (t *testRun) tally(name, packageAction string, w io.Writer, n *count, allowed skips) {
	switch {
	case t.action == "fail" || t.action == "" && packageAction == "fail":
		fmt.Fprintf(w, "FAIL %s\n%s", name, strings.Join(t.output, ""))
		if !t.badChild {
			n.failed++
		}
	case t.action == "skip":
		n.skip(name, w, allowed, strings.Join(t.output, ""))
	case t.action == "pass" && !t.parent:
		n.passed++
	}
}

func (n *count) skip(name string, w io.Writer, allowed skips, output string) {
	if reason := allowed.reason(name); reason != "" {
		fmt.Fprintf(w, "skip %s: %s\n", name, reason)
		n.skipped++
		return
	}
	fmt.Fprintf(w, "FAIL %s: skipped, and the list of skips does not name it\n%s", name, output)
	n.failed++
}

func short(pkg string) string { return strings.TrimPrefix(pkg, modulePrefix) }

var (
	// Node's reporters close with "# pass 3" (tap) or "ℹ pass 3" (spec).
	nodeSum = regexp.MustCompile(`^(?:#|ℹ) (pass|fail|cancelled|skipped|todo) (\d+)$`)
	// A skipped test: "ok 1 - name # SKIP why" (tap), "﹣ name (0.1ms) # SKIP" (spec).
	nodeSkip = regexp.MustCompile(`^\s*(?:ok \d+ - |﹣ )(.*?)(?: \([\d.]+ms\))? # SKIP`)
)

// A quiet drops what tap says about tests that went well: "ok 1 - name" with its block, and subtests' headings.
type quiet struct{ inBlock, wasOK bool }

func (q *quiet) drop(line string) bool {
	trimmed := strings.TrimSpace(line)
	switch {
	case q.inBlock:
		q.inBlock = trimmed != "..."
		return q.wasOK
	case trimmed == "---":
		q.inBlock = true
		return q.wasOK
	case strings.HasPrefix(trimmed, "# Subtest:"):
		return true
	}
	q.wasOK = strings.HasPrefix(trimmed, "ok ")
	return q.wasOK
}

// nodeTests reads the output of node --test; several runs in one output add up.
func nodeTests(in io.Reader, w io.Writer, allowed skips) (count, error) {
	var n count
	sums := 0
	var q quiet
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), " ")
		if !q.drop(line) {
			fmt.Fprintln(w, line)
		}
		if m := nodeSkip.FindStringSubmatch(line); m != nil {
			n.skip("provisioning/web."+strings.ReplaceAll(m[1], " ", "_"), w, allowed, "")
			continue
		}
		m := nodeSum.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		k, err := strconv.Atoi(m[2])
		if err != nil {
			return n, err
		}
		switch m[1] {
		case "pass":
			sums++
			n.passed += k
		case "fail", "cancelled", "todo":
			n.failed += k
		}
	}
	if sums == 0 {
		fmt.Fprintln(w, "FAIL: node's test runner did not say how it ended")
		n.failed++
	}
	return n, lines.Err()
}

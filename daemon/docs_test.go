package daemon

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The documents in docs/ make claims about the code. Each claim names its place in backticks, in one of these forms,
// and this test looks every place up:
//
//	`daemon/session/line.go`                a path from the top of the clone
//	`daemon/pipeline.go: errSynthetic`      the file holds this text
//	`TestNothingIsSentWithoutKey`           a Go test, fuzz target, benchmark or example
//	`make e2e`                              a target of the Makefile

var (
	codeBlock = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpan  = regexp.MustCompile("`([^`]+)`")
	testName  = regexp.MustCompile(`^(?:Test|Fuzz|Benchmark|Example)[A-Z_0-9]\w*$`)
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)[A-Z_0-9]\w*)\(`)
	// A name of a source file that does not say where it is cannot be looked up.
	looseFile = regexp.MustCompile(`^[^\s/]+\.(?:go|ts|mjs|sql|md|c|h)$`)
)

// tops are what a path in the documents may begin with: what lies at the top of the clone.
func tops(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if e.Name() != ".git" && e.Name() != "build" {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// goTests returns the names of all tests below dir.
func goTests(dir string) (map[string]bool, error) {
	names := make(map[string]bool)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "build", "node_modules"}, d.Name()):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	return names, err
}

// places returns how many places a text names, and which of them are not there.
func places(text, dir string, tests map[string]bool) (found int, missing []string, err error) {
	top, err := tops(dir)
	if err != nil {
		return 0, nil, err
	}
	for _, m := range codeSpan.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		span := strings.Join(strings.Fields(m[1]), " ") // a line may break within
		path, within, _ := strings.Cut(span, ": ")
		first, _, _ := strings.Cut(path, "/")
		switch {
		case testName.MatchString(span):
			found++
			if !tests[span] {
				missing = append(missing, span)
			}
		case slices.Contains(top, first):
			found++
			if !holds(filepath.Join(dir, path), within) {
				missing = append(missing, span)
			}
		case looseFile.MatchString(path):
			missing = append(missing, fmt.Sprintf("%s (no path from the top)", span))
		}
	}
	return found, missing, nil
}

// holds reports whether path is there and, if within is not empty, holds that text; runs of space count as one.
func holds(path, within string) bool {
	if within == "" {
		_, err := os.Stat(path)
		return err == nil
	}
	text, err := os.ReadFile(path)
	return err == nil && strings.Contains(strings.Join(strings.Fields(string(text)), " "), within)
}

// TestDocs asserts that what the documents point to is in the tree.
func TestDocs(t *testing.T) {
	dir := repo(t)
	tests, err := goTests(dir)
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(dir, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for name, least := range map[string]int{"threat-model.md": 80, "keys.md": 40, "media.md": 20} {
		file := filepath.Join(dir, "daemon", "docs", name)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		found, missing, err := places(string(text), dir, tests)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range missing {
			t.Errorf("%s: `%s` is not there", name, m)
		}
		if found < least {
			t.Errorf("%s names %d places in the code, at least %d are expected", name, found, least)
		}
		for _, link := range missingFiles(string(text), filepath.Dir(file)) {
			t.Errorf("%s: link to %s leads nowhere", name, link)
		}
		for _, target := range missingTargets(string(text), string(makefile)) {
			t.Errorf("%s: make %s is not in the Makefile", name, target)
		}
	}
}

// TestThreatModelSaysTheLimits asserts the sentences that must not be softened.
func TestThreatModelSaysTheLimits(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(repo(t), "daemon", "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(strings.ReplaceAll(string(raw), "\n> ", "\n")), " ")
	for _, words := range []string{
		"a browser that loads its page from the hub trusts that page. Means against it, in order: passkeys known to the clinic bind the browser's keys; the page is a static signed bundle on an origin of its own whose hash the rooms watch; staff can install it; room to room has no such gap.",
		"Nobody outside the session can speak as a member; in a session of three or more, a member who also controls the server could imitate another member.",
		"hostile page code; denial of service; sizes and times",
		"A publisher cannot command a room, but its code runs with all keys",
	} {
		if !strings.Contains(text, words) {
			t.Errorf("the threat model does not say: %s", words)
		}
	}
}

func TestDocsCanFail(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "daemon"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "daemon", "a.go"), []byte("package a\n\nvar\n  x = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const text = "`daemon/a.go` `daemon/a.go: var x` `TestHere` `GET /v1/trust` `a.go` `daemon/b.go` `daemon/a.go: var y`\n" +
		"`TestGone` `daemon/a.go:\nx = 1`\n```\n`daemon/c.go`\n```\n"
	found, missing, err := places(text, dir, map[string]bool{"TestHere": true})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a.go (no path from the top)", "daemon/b.go", "daemon/a.go: var y", "TestGone"}; !slices.Equal(missing, want) || found != 7 {
		t.Errorf("found %d, missing %q", found, missing)
	}
	if !holds(filepath.Join(dir, "daemon"), "") || holds(filepath.Join(dir, "daemon"), "x") {
		t.Error("a folder is there, and holds no text")
	}
}

package daemon

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	makeTarget = regexp.MustCompile(`(?m)^([a-z0-9-]+):.*##`)
	// In code spans and blocks; a line break may fall between the words.
	makeWord     = regexp.MustCompile("(?m)(?:`|^)make\\s+([a-z0-9-]+)")
	markdownLink = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
)

// missingTargets returns what a text tells people to make and the Makefile cannot.
func missingTargets(text, makefile string) []string {
	var targets, missing []string
	for _, m := range makeTarget.FindAllStringSubmatch(makefile, -1) {
		targets = append(targets, m[1])
	}
	for _, m := range makeWord.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(targets, m[1]) {
			missing = append(missing, m[1])
		}
	}
	return missing
}

// missingFiles returns the links of a text that lead to no file below dir.
func missingFiles(text, dir string) []string {
	var missing []string
	for _, m := range markdownLink.FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, m[1])); err != nil {
			missing = append(missing, m[1])
		}
	}
	return missing
}

// TestReadme asserts that what the README tells people to type and to open is there.
func TestReadme(t *testing.T) {
	dir := repo(t)
	makefile, err := os.ReadFile(filepath.Join(dir, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range missingTargets(string(readme), string(makefile)) {
		t.Errorf("README.md: make %s is not in the Makefile", name)
	}
	for _, file := range []string{"README.md", "CHANGELOG.md", "image/README.md", "provisioning/hub/PROTOCOL.md"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, link := range missingFiles(string(text), filepath.Join(dir, filepath.Dir(file))) {
			t.Errorf("%s: %s is not there", file, link)
		}
	}
	// The limit of the second promise is said in these words.
	const limit = "a browser that loads its page from the hub trusts that page. Means against it, in order: passkeys known to the clinic bind the browser's keys; the page is a static signed bundle on an origin of its own whose hash the rooms watch; staff can install it; room to room has no such gap."
	if !strings.Contains(strings.Join(strings.Fields(string(readme)), " "), limit) {
		t.Error("README.md does not say the limit of the second promise in its words")
	}
}

func TestReadmeCanFail(t *testing.T) {
	if got := missingTargets("`make run`, `make\nnonsense`\nmake test # x", "run: ## x\ntest: build ## y\n"); !slices.Equal(got, []string{"nonsense"}) {
		t.Errorf("got %q", got)
	}
	if got := missingFiles("[a](here) [b](gone.md#part) [c](https://example.org/x)", t.TempDir()); !slices.Equal(got, []string{"here", "gone.md"}) {
		t.Errorf("got %q", got)
	}
}

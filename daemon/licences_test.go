package daemon

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/google/licensecheck"
)

var updateThirdParty = flag.Bool("update-third-party", false, "write THIRD-PARTY")

// permitted are the licences that what we link may have, by SPDX name, with what each asks of us. A licence
// that is not here is refused; above all, every GPL is.
var permitted = map[string]string{
	"0BSD":         "nothing",
	"Apache-2.0":   "keep text and NOTICE",
	"BSD-2-Clause": "keep the text",
	"BSD-3-Clause": "keep the text",
	"CC0-1.0":      "nothing",
	"ISC":          "keep the text",
	"MIT":          "keep the text",
	"MPL-2.0":      "offer the source of its files, which we do not change",
	"OFL-1.1":      "keep the text; fonts only",
	"Unlicense":    "nothing",
	"Zlib":         "keep the text",
}

// sameTerms are variants that licensecheck tells apart and that ask the same of us.
var sameTerms = map[string]string{
	"BSD-3-Clause-NoAllRights": "BSD-3-Clause",
	"BSD-2-Clause-FreeBSD":     "BSD-2-Clause",
	"BSD-2-Clause-Views":       "BSD-2-Clause",
	"MIT-0":                    "MIT",
}

// A library is a C library that alcove-capture links, from Debian.
type library struct{ debian, licence string }

// libraries are keyed by pkg-config's name, or by the linker's flag.
var libraries = map[string]library{
	"libdrm":    {"libdrm", "MIT"},
	"libva":     {"libva", "MIT"},
	"libva-drm": {"libva", "MIT"},
	"openh264":  {"openh264", "BSD-2-Clause"},
	"opus":      {"opus", "BSD-3-Clause"},
	"vpx":       {"libvpx", "BSD-3-Clause"},
	"-lm":       {"glibc", glibc},
	"-ldl":      {"glibc", glibc},
	"-lpthread": {"glibc", glibc},
}

const glibc = "LGPL-2.1-or-later, linked dynamically"

// A part is somebody else's work in one of our programs.
type part struct {
	name, version string
	licences      []string
	in            []string
}

// TestThirdParty asserts that THIRD-PARTY is what is linked now, and that all of it may be linked.
func TestThirdParty(t *testing.T) {
	text := thirdParty(t)
	file := filepath.Join(repo(t), "THIRD-PARTY")
	if *updateThirdParty {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != text {
		t.Errorf("THIRD-PARTY is not what is linked now: run make licences\n%s", firstDifference(string(committed), text))
	}
}

func thirdParty(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("What others made and Alcove's programs contain. Written by make licences, checked by make test.\n")
	b.WriteString("The licence texts are in the modules and packages themselves.\n")

	modules := goModules(t)
	fmt.Fprintf(&b, "\nGo modules (and the Go standard library, BSD-3-Clause, in all of them)\n\n")
	table(&b, t, modules)
	fmt.Fprintf(&b, "\nC libraries of alcove-capture, linked dynamically, from Debian\n\n")
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, lib := range cLibraries(t) {
		fmt.Fprintf(w, "%s\t%s\n", lib.debian, lib.licence)
	}
	w.Flush()
	fmt.Fprintf(&b, "\nnpm packages in the pages\n\n")
	table(&b, t, npmPackages(t))
	return b.String()
}

func table(b *strings.Builder, t *testing.T, parts []part) {
	if len(parts) == 0 {
		t.Error("a part of THIRD-PARTY would be empty")
	}
	w := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	for _, p := range parts {
		for _, bad := range refused(p.licences) {
			t.Errorf("%s %s, linked by %v: licence %q is not one that we link", p.name, p.version, p.in, bad)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.name, p.version, strings.Join(p.licences, " "), strings.Join(p.in, " "))
	}
	w.Flush()
}

// refused returns the licences that are not permitted; a part without any licence is refused too.
func refused(licences []string) []string {
	if len(licences) == 0 {
		return []string{"none found"}
	}
	var bad []string
	for _, l := range licences {
		if permitted[l] == "" {
			bad = append(bad, l)
		}
	}
	return bad
}

func TestRefusedLicences(t *testing.T) {
	for _, bad := range [][]string{nil, {"GPL-2.0"}, {"GPL-3.0-or-later"}, {"AGPL-3.0"}, {"LGPL-2.1"}, {"MIT", "GPL-3.0"}, {"SSPL-1.0"}, {"UNLICENSED"}} {
		if len(refused(bad)) == 0 {
			t.Errorf("%v would be linked", bad)
		}
	}
	if bad := refused([]string{"Apache-2.0", "MIT"}); bad != nil {
		t.Errorf("%v is refused", bad)
	}
}

// goModules returns the modules that the programs link.
func goModules(t *testing.T) []part {
	t.Helper()
	parts := map[string]*part{}
	dirs := map[string]string{}
	for _, main := range mains {
		g, err := list(repo(t), main == mainCapture, main)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range g {
			if p.Module == nil || p.Module.Main {
				continue
			}
			m := parts[p.Module.Path]
			if m == nil {
				m = &part{name: p.Module.Path, version: p.Module.Version}
				parts[p.Module.Path] = m
				dirs[p.Module.Path] = p.Module.Dir
			}
			if name := path.Base(main); !slices.Contains(m.in, name) {
				m.in = append(m.in, name)
			}
		}
	}
	var sorted []part
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		p := parts[name]
		p.licences = licencesIn(t, dirs[name])
		sorted = append(sorted, *p)
	}
	return sorted
}

var licenceFile = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying)([-._].*)?$`)

// licencesIn recognises the licence texts at the top of a module.
func licencesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Errorf("read a module: %v", err)
		return nil
	}
	found := map[string]bool{}
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Errorf("read a licence: %v", err)
			continue
		}
		for _, id := range recognise(text) {
			found[id] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func recognise(text []byte) []string {
	var ids []string
	for _, m := range licensecheck.Scan(text).Match {
		id := m.ID
		if same := sameTerms[id]; same != "" {
			id = same
		}
		if !m.IsURL {
			ids = append(ids, id)
		}
	}
	return ids
}

// cLibraries returns what alcove-capture's packages ask the linker for.
func cLibraries(t *testing.T) []library {
	t.Helper()
	g, err := list(repo(t), true, mainCapture)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]library{}
	for _, p := range g {
		if p.Standard {
			continue
		}
		for _, name := range append(slices.Clone(p.CgoPkgConfig), p.CgoLDFLAGS...) {
			lib, known := libraries[name]
			if !known {
				t.Errorf("%s links %q: its licence is not in the table", p.ImportPath, name)
				continue
			}
			found[lib.debian] = lib
		}
	}
	if len(found) == 0 {
		t.Error("no C library found")
	}
	var sorted []library
	for _, name := range slices.Sorted(maps.Keys(found)) {
		sorted = append(sorted, found[name])
	}
	return sorted
}

// npmPackages returns what the lockfile installs for running, not for building and testing.
func npmPackages(t *testing.T) []part {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(repo(t), "provisioning", "web", "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct {
			Version, License string
			Dev, DevOptional bool
		}
	}
	if err := json.Unmarshal(raw, &lock); err != nil {
		t.Fatal(err)
	}
	var parts []part
	for _, where := range slices.Sorted(maps.Keys(lock.Packages)) {
		p := lock.Packages[where]
		if where == "" || p.Dev {
			continue
		}
		_, name, _ := cutLast(where, "node_modules/")
		parts = append(parts, part{name: name, version: p.Version, licences: spdx(p.License), in: []string{"web"}})
	}
	return parts
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// spdx takes an SPDX expression apart. Every name in it has to be permitted, also where the expression
// leaves a choice: that is stricter than it needs to be, and never too lax.
func spdx(expression string) []string {
	var names []string
	for _, word := range strings.FieldsFunc(expression, func(r rune) bool { return strings.ContainsRune(" ()", r) }) {
		if word != "AND" && word != "OR" {
			names = append(names, word)
		}
	}
	return names
}

func TestSPDX(t *testing.T) {
	if got := spdx("(Apache-2.0 AND (MIT OR GPL-3.0))"); !slices.Equal(got, []string{"Apache-2.0", "MIT", "GPL-3.0"}) {
		t.Errorf("got %q", got)
	}
}

// firstDifference shows where two texts part.
func firstDifference(was, is string) string {
	a, b := strings.Split(was, "\n"), strings.Split(is, "\n")
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d\nis     %s\nshould %s", i+1, x, y)
		}
	}
	return ""
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"github.com/alcove-room/alcove/a"}
{"Action":"run","Package":"github.com/alcove-room/alcove/a","Test":"TestOne"}
{"Action":"pass","Package":"github.com/alcove-room/alcove/a","Test":"TestOne"}
{"Action":"run","Package":"github.com/alcove-room/alcove/a","Test":"TestTree"}
{"Action":"run","Package":"github.com/alcove-room/alcove/a","Test":"TestTree/x"}
{"Action":"pass","Package":"github.com/alcove-room/alcove/a","Test":"TestTree/x"}
{"Action":"run","Package":"github.com/alcove-room/alcove/a","Test":"TestTree/y"}
{"Action":"pass","Package":"github.com/alcove-room/alcove/a","Test":"TestTree/y"}
{"Action":"pass","Package":"github.com/alcove-room/alcove/a","Test":"TestTree"}
{"Action":"run","Package":"github.com/alcove-room/alcove/a","Test":"TestSkip"}
{"Action":"skip","Package":"github.com/alcove-room/alcove/a","Test":"TestSkip"}
{"Action":"pass","Package":"github.com/alcove-room/alcove/a","Elapsed":1}
`

func TestGo(t *testing.T) {
	const a = "github.com/alcove-room/alcove/a"
	for _, c := range []struct {
		name, events string
		allowed      skips
		want         count
	}{
		{"leaves, listed skip", events, skips{"a.TestSk*": "why"}, count{3, 0, 1}},
		{"unlisted skip", events, skips{"b.TestSkip": "why"}, count{3, 1, 0}},
		{"build failed", `{"ImportPath":"` + a + `","Action":"build-output","Output":"x.go:1: no\n"}
{"Action":"fail","Package":"` + a + `","FailedBuild":"` + a + `"}`, nil, count{0, 1, 0}},
		{"runner died", `{"Action":"run","Package":"` + a + `","Test":"TestOne"}`, nil, count{0, 1, 0}},
		{"panic: the running test gets no result", `{"Action":"run","Package":"` + a + `","Test":"TestOne"}
{"Action":"output","Package":"` + a + `","Test":"TestOne","Output":"panic: x\n"}
{"Action":"fail","Package":"` + a + `"}`, nil, count{0, 1, 0}},
		{"a failed subtest counts once", `{"Action":"run","Package":"` + a + `","Test":"T"}
{"Action":"run","Package":"` + a + `","Test":"T/x"}
{"Action":"fail","Package":"` + a + `","Test":"T/x"}
{"Action":"fail","Package":"` + a + `","Test":"T"}
{"Action":"fail","Package":"` + a + `"}`, nil, count{0, 1, 0}},
		{"a failed parent of good children counts", `{"Action":"run","Package":"` + a + `","Test":"T"}
{"Action":"run","Package":"` + a + `","Test":"T/x"}
{"Action":"pass","Package":"` + a + `","Test":"T/x"}
{"Action":"fail","Package":"` + a + `","Test":"T"}
{"Action":"fail","Package":"` + a + `"}`, nil, count{1, 1, 0}},
		{"no test files", `{"Action":"skip","Package":"` + a + `"}`, nil, count{}},
	} {
		var shown strings.Builder
		got, err := goTests(strings.NewReader(c.events), &shown, c.allowed)
		if err != nil || got != c.want {
			t.Errorf("%s: got %v %v, want %v\n%s", c.name, got, err, c.want, shown.String())
		}
	}
}

func TestNode(t *testing.T) {
	for _, c := range []struct {
		name, out string
		want      count
	}{
		{"tap", "ok 1 - a\nok 2 - b c # SKIP no camera\n# pass 1\n# fail 0\n# cancelled 0\n# skipped 1\n# todo 0\n", count{1, 0, 1}},
		{"spec", "✔ a (0.8ms)\n﹣ b c (0.1ms) # SKIP\nℹ pass 1\nℹ fail 2\nℹ skipped 1\n", count{1, 2, 1}},
		{"nothing said", "tsc: error\n", count{0, 1, 0}},
	} {
		got, err := nodeTests(strings.NewReader(c.out), &strings.Builder{}, skips{"provisioning/web.b_c": "why"})
		if err != nil || got != c.want {
			t.Errorf("%s: got %v %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestNodeShowsWhatFailed(t *testing.T) {
	const tap = "# Subtest: a\nok 1 - a\n  ---\n  duration_ms: 1\n  ...\n# Subtest: b\nnot ok 2 - b\n  ---\n  error: 'x is not y'\n  ...\n# pass 1\n# fail 1\n"
	var shown strings.Builder
	if _, err := nodeTests(strings.NewReader(tap), &shown, nil); err != nil {
		t.Fatal(err)
	}
	if want := "not ok 2 - b\n  ---\n  error: 'x is not y'\n  ...\n# pass 1\n# fail 1\n"; shown.String() != want {
		t.Errorf("shown:\n%swant:\n%s", shown.String(), want)
	}
}

func TestSkipsNeedReasons(t *testing.T) {
	if _, err := readSkips(strings.NewReader("# a comment\n\na.TestX\n")); err == nil {
		t.Error("a skip without a reason was taken")
	}
	s, err := readSkips(strings.NewReader("a.TestX the reason\n"))
	if err != nil || s.reason("a.TestX") != "the reason" || s.reason("a.TestXY") != "" {
		t.Errorf("got %v %v", s, err)
	}
}

func TestTotal(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good, bad, none := file("good", "3 0 1\n"), file("bad", "2 1 0\n"), file("none", "0 0 0\n")
	for _, c := range []struct {
		files []string
		want  string
		ok    bool
	}{
		{[]string{good, good}, "6 passed, 0 failed, 2 skipped\n", true},
		{[]string{good, bad}, "5 passed, 1 failed, 1 skipped\n", false},
		{[]string{none}, "0 passed, 0 failed, 0 skipped\n", false},
		{nil, "0 passed, 0 failed, 0 skipped\n", false},
	} {
		var w strings.Builder
		err := total(c.files, &w)
		if w.String() != c.want || (err == nil) != c.ok {
			t.Errorf("%v: got %q %v", c.files, w.String(), err)
		}
	}
}

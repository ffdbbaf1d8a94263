package sessions

import (
	"strings"
	"testing"
	"time"
)

func TestParseControl(t *testing.T) {
	for _, bad := range []string{
		``, `null`, `{}`, `[]`, `{"t":"nothing"}`, `{"t":"hello","bearer":"x","d":"y"}`, `{"T":"token"}`, `{"t":"token","t":"leave"}`,
		`{"t":"token","x":1}`, `{"t":"ping","n":-1}`, `{"t":"ping","n":1.5}`, `{"t":"token"}{}`, `{"t":"open","sid":"x","d":"y"}`,
		`{"t":"refuse","d":"x","reason":"x"}`, "{\"t\":\"\xff\"}",
	} {
		if c, err := parseControl([]byte(bad), pageFields()); err == nil {
			t.Errorf("a page may say %s: %+v", bad, c)
		}
	}
	if _, err := parseControl([]byte(`{"t":"close","reason":"`+strings.Repeat("x", maxReason+1)+`"}`), roomFields()); err == nil {
		t.Error("a long reason is accepted")
	}
	if _, err := parseControl([]byte(`{"t":"close","reason":"a\nb"}`), roomFields()); err == nil {
		t.Error("a line break in a reason is accepted")
	}
	if c, err := parseControl([]byte(`{"t":"ping","n":7}`), pageFields()); err != nil || c.N != 7 {
		t.Errorf("ping: %+v, %v", c, err)
	}
}

func FuzzControl(f *testing.F) {
	for _, s := range []string{`{"t":"ping","n":7}`, `{"t":"open","sid":"AAAAAAAAAAAAAAAAAAAAAA","d":"00"}`, `{"t":"close","reason":"done"}`,
		`{"t":"hello","bearer":"x"}`, `{"t":"knock","d":"` + strings.Repeat("0f", 32) + `"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, allowed := range []map[string]fields{pageFields(), roomFields()} {
			c, err := parseControl(raw, allowed)
			if err != nil {
				if c != (control{}) {
					t.Error("a refused message has content")
				}
				continue
			}
			if _, ok := allowed[c.T]; !ok || len(c.Reason) > maxReason || !printable(c.Reason) {
				t.Errorf("accepted %+v", c)
			}
			if d, err := ParseD(c.D); err == nil && d.String() != c.D {
				t.Error("two spellings of one document hash")
			}
			if sid, err := ParseSID(c.SID); err == nil && sid.String() != c.SID {
				t.Error("two spellings of one session id")
			}
		}
	})
}

func TestAddressLimit(t *testing.T) {
	l := NewAddressLimit(time.Second, 3)
	now := time.Unix(1_000_000, 0)
	count := func(remote string, at time.Time) (n int) {
		for range 10 {
			if l.Allow(remote, at) {
				n++
			}
		}
		return n
	}
	if n := count("192.0.2.1:1000", now); n != 3 {
		t.Errorf("burst %d", n)
	}
	if n := count("192.0.2.1:2000", now); n != 0 {
		t.Errorf("another port of the address: %d", n)
	}
	if n := count("[2001:db8::1]:1", now); n != 3 {
		t.Errorf("IPv6: %d", n)
	}
	if n := count("[2001:db8::ffff:1]:1", now); n != 0 {
		t.Errorf("the same /64: %d", n)
	}
	if n := count("[::ffff:192.0.2.1]:1", now); n != 0 {
		t.Errorf("IPv4 in IPv6: %d", n)
	}
	if n := count("192.0.2.1:1", now.Add(2*time.Second)); n != 2 {
		t.Errorf("two seconds later: %d", n)
	}
	for i := range maxAddresses + 10 {
		l.Allow(strings.Join([]string{"10", itoa(i >> 16 & 255), itoa(i >> 8 & 255), itoa(i & 255)}, ".")+":1", now.Add(time.Minute))
	}
	if len(l.known) > maxAddresses {
		t.Errorf("%d addresses are kept", len(l.known))
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

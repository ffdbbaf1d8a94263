package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Serial int `json:"serial"`
}

type sample struct {
	inner
	Name  string            `json:"name"`
	Keys  []inner           `json:"keys"`
	ByID  map[string]inner  `json:"by_id"`
	Ptr   *inner            `json:"ptr"`
	Raw   json.RawMessage   `json:"raw"`
	Any   any               `json:"any"`
	Bin   Bytes             `json:"bin"`
	Hash  Hash              `json:"hash"`
	When  time.Time         `json:"when"`
	Texts map[string]string `json:"texts"`
}

func TestDecode(t *testing.T) {
	deep := strings.Repeat(`{"any":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1)
	for text, want := range map[string]error{
		`{"name":"a","serial":1,"keys":[{"serial":2}],"by_id":{"X":{"serial":3},"y":{"serial":4}},"raw":{"any":1}}`: nil,
		` {"ptr":null,"any":null,"raw":null,"keys":null,"texts":null} `:                                             nil,
		`{"any":{"a":[1,{"b":2}]},"bin":"AQI","when":"2027-01-01T00:00:00Z"}`:                                       nil,
		`{"name":"\ud83d\ude00 \u00fc \\ud800"}`:                                                                    nil,

		`{"name":"a","name":"b"}`:                         ErrDuplicateName,
		`{"name":"a","n\u0061me":"b"}`:                    ErrDuplicateName,
		`{"name":"a","Name":"b"}`:                         ErrNameCase,
		`{"Name":"a"}`:                                    ErrNameCase,
		`{"NAME":"a"}`:                                    ErrNameCase,
		`{"ſerial":1}`:                                    ErrNameCase, // folds to serial
		"{\"\u212Aeys\":[]}":                              ErrNameCase, // the Kelvin sign folds to k
		`{"by_id":{"a":{"serial":1},"A":{}}}`:             ErrNameCase,
		`{"by_id":{"a":{"Serial":1}}}`:                    ErrNameCase,
		`{"keys":[{"serial":1},{"serial":1,"SeriaL":2}]}`: ErrNameCase,
		`{"any":{"a":1,"a":2}}`:                           ErrDuplicateName,
		`{"raw":{"a":{"b":1,"b":1}}}`:                     ErrDuplicateName,
		`{"raw":[{"a":1,"A":1}]}`:                         ErrNameCase,
		`{"nome":"a"}`:                                    ErrUnknownName,
		`{"skip":1}`:                                      ErrUnknownName,
		`{"inner":{"serial":1}}`:                          ErrUnknownName,
		`{"ptr":{"x":1}}`:                                 ErrUnknownName,
		`{"":1}`:                                          ErrUnknownName,
		`{"name":"a"} x`:                                  ErrTrailing,
		`{"name":"a"}{}`:                                  ErrTrailing,
		`{"name":"a"}]`:                                   ErrTrailing,
		deep:                                              ErrTooDeep,
		`{"any":` + strings.Repeat("[", MaxDepth+1):       ErrTooDeep,
		`{"name":"` + strings.Repeat("x", MaxSize):        ErrTooLarge,
		``:                                ErrSyntax,
		`{`:                               ErrSyntax,
		`{"name"}`:                        ErrSyntax,
		`{"name":}`:                       ErrSyntax,
		`{"name":"a",}`:                   ErrSyntax,
		`{"keys":[{"serial":1},]}`:        ErrSyntax,
		`{name:"a"}`:                      ErrSyntax,
		`{"name":null}`:                   ErrSyntax,
		`{"bin":null}`:                    ErrSyntax,
		`{"hash":null}`:                   ErrSyntax,
		`{"when":null}`:                   ErrSyntax,
		`{"keys":[null]}`:                 ErrSyntax,
		"{\"name\":\"\xff\"}":             ErrSyntax,
		`{"name":"\ud800"}`:               ErrSyntax,
		`{"name":"\udc00\ud800"}`:         ErrSyntax,
		`{"name":"\ud800\ud800"}`:         ErrSyntax,
		"\ufeff{}":                        ErrSyntax,
		`{"name":1}`:                      ErrJSON,
		`{"serial":1.5}`:                  ErrJSON,
		`{"serial":99999999999999999999}`: ErrJSON,
		`{"bin":"AQI="}`:                  ErrJSON,
		`{"bin":"AQJ"}`:                   ErrJSON, // trailing bits
		"{\"bin\":\"AQ\\nI\"}":            ErrJSON,
		`{"bin":"+/8"}`:                   ErrJSON,
		`{"hash":"AB"}`:                   ErrJSON,
		`{"hash":"` + strings.Repeat("AB", 32) + `"}`: ErrJSON,
		`[]`: ErrJSON,
	} {
		var v sample
		err := Decode([]byte(text), &v)
		if want == nil && err != nil || want != nil && (!errors.Is(err, want) || !errors.Is(err, ErrJSON)) {
			t.Errorf("%.60s: %v, want %v", text, err, want)
		}
	}
	if err := Decode([]byte("{}"), sample{}); err == nil {
		t.Error("decoded into a value")
	}
	if err := Decode([]byte("{}"), nil); err == nil {
		t.Error("decoded into nothing")
	}
}

// What Decode takes, encoding/json takes, and gives the same value: the walk and
// the decoder do not disagree.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"name":"a","serial":1,"keys":[{"serial":2}],"by_id":{"X":{"serial":3}},"ptr":null}`,
		`{"any":[{"a":{}},1e3,"x",null,true],"raw":{"a":1}}`, `{"Name":1}`, `{"name":"\ud800"}`, `[1,2`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, plain sample
		if Decode(b, &got) != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&plain); err != nil {
			t.Fatalf("only Decode accepts %q: %v", b, err)
		}
		if fmt.Sprintf("%+v", got.Any) != fmt.Sprintf("%+v", plain.Any) || got.Name != plain.Name || got.Serial != plain.Serial {
			t.Errorf("%q: %+v and %+v", b, got, plain)
		}
		again, err := json.Marshal(&got)
		if err != nil {
			return // a RawMessage that is only white space around nothing
		}
		var second sample
		if err := Decode(again, &second); err != nil && len(again) < MaxSize {
			t.Errorf("%q came out as %q: %v", b, again, err)
		}
	})
}

// Parsers of everything that strangers send: no panic, and what is accepted
// passes through JSON unchanged.
func FuzzParse(f *testing.F) {
	c := newClinic(f)
	claim, _ := c.claim()
	for _, v := range []any{c.chain[0], c.sign(c.roster(1), c.keys[RoleRoster][0]), claim} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	trust := c.trust()
	f.Fuzz(func(t *testing.T, b []byte) {
		if claim, err := ParseClaim(b); err == nil {
			again, err := json.Marshal(claim)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseClaim(again); err != nil {
				t.Errorf("claim: %v", err)
			}
		}
		e, err := ParseEnvelope(b)
		if err != nil {
			return
		}
		if _, err := e.Type(); err == nil {
			if d, err := Inspect(e); err == nil && d.Order() == (Order{}) {
				t.Error("a document without an order")
			}
		}
		// No key of the clinic signs here: what verifies is what was signed.
		if _, err := Verify[Roster](e, trust, State{}, start); err == nil && e.Signatures[0].KeyID != c.keys[RoleRoster][0].Public().ID() {
			t.Error("believed without a signature")
		}
	})
}

// FuzzPayload feeds the parsers behind the signature.
func FuzzPayload(f *testing.F) {
	c := newClinic(f)
	for _, d := range []Document{c.roots[0], c.roster(1), c.people(1), c.config(1)} {
		b, err := json.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range Types() {
			d, err := Inspect(&Envelope{PayloadType: kind.PayloadType(), Payload: b})
			if err != nil {
				continue
			}
			again, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Inspect(&Envelope{PayloadType: kind.PayloadType(), Payload: again}); err != nil {
				t.Errorf("%s: %v: %s", kind, err, again)
			}
		}
	})
}

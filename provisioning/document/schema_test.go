package document

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The schemas name exactly what the Go types read, at every depth.
func TestSchemasMatchTypes(t *testing.T) {
	types := map[string]any{
		"envelope": Envelope{}, "owner-root": OwnerRoot{}, "roster": Roster{}, "people": People{}, "config": Config{},
		"claim": Claim{}, "enrolment": Enrolment{},
	}
	entries, err := Schemas.ReadDir("schema")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(types) {
		t.Errorf("%d schemas, %d types", len(entries), len(types))
	}
	objects := 0
	for name, v := range types {
		b, err := Schemas.ReadFile("schema/" + name + ".schema.json")
		if err != nil {
			t.Error(err)
			continue
		}
		var s any
		if err := Decode(b, &s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		objects += compare(t, name, s.(map[string]any), reflect.TypeOf(v))
	}
	if objects < 15 {
		t.Errorf("only %d objects were compared", objects)
	}
}

func compare(t *testing.T, at string, s map[string]any, typ reflect.Type) int {
	typ = shape(typ)
	if typ == nil {
		return 0
	}
	switch typ.Kind() {
	case reflect.Slice:
		items, ok := s["items"].(map[string]any)
		if !ok {
			t.Errorf("%s: no items", at)
			return 0
		}
		if items["$ref"] != nil {
			return 0
		}
		return compare(t, at+"[]", items, typ.Elem())
	case reflect.Map:
		values, ok := s["additionalProperties"].(map[string]any)
		if !ok {
			t.Errorf("%s: no additionalProperties", at)
			return 0
		}
		return compare(t, at+"{}", values, typ.Elem())
	case reflect.Struct:
		return compareObject(t, at, s, typ)
	}
	return 0
}

func compareObject(t *testing.T, at string, s map[string]any, typ reflect.Type) int {
	if s["additionalProperties"] != false {
		t.Errorf("%s: unknown names are not refused", at)
	}
	properties, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	fields := members(typ)
	n := 1
	for name, f := range fields {
		p, ok := properties[name].(map[string]any)
		if !ok {
			t.Errorf("%s: schema lacks %q", at, name)
			continue
		}
		optional := strings.Contains(f.Tag.Get("json"), ",omit")
		if slices.Contains(required, any(name)) == optional {
			t.Errorf("%s: %q is required in one and not in the other", at, name)
		}
		n += compare(t, at+"."+name, p, f.Type)
	}
	for name := range properties {
		if _, ok := fields[name]; !ok {
			t.Errorf("%s: schema has %q, the type does not", at, name)
		}
	}
	return n
}

// Numbers that both sides state are the same.
func TestSchemaBounds(t *testing.T) {
	var s struct {
		Properties struct {
			Video struct {
				Properties map[string]struct{ Minimum, Maximum int }
			}
		}
	}
	b, err := Schemas.ReadFile("schema/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	c := newClinic(t)
	set := map[string]func(*Config, int){
		"width": func(c *Config, n int) { c.Video.Width = n }, "height": func(c *Config, n int) { c.Video.Height = n },
		"fps": func(c *Config, n int) { c.Video.FPS = n }, "max_bitrate": func(c *Config, n int) { c.Video.MaxBitrate = n },
	}
	for name, put := range set {
		p := s.Properties.Video.Properties[name]
		for n, ok := range map[int]bool{p.Minimum: true, p.Maximum: true, p.Minimum - 2: false, p.Maximum + 2: false} {
			d := c.config(1)
			put(d, n)
			if err := d.Validate(); (err == nil) != ok {
				t.Errorf("%s = %d: %v", name, n, err)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	c := newClinic(t)
	for name, d := range map[string]Document{
		"loopback":       with(c.config(1), func(d *Config) { d.CallOrigin = "http://127.0.0.1:8080" }),
		"IPv6 loopback":  with(c.config(1), func(d *Config) { d.CallOrigin = "http://[::1]:8080" }),
		"empty crisis":   with(c.config(1), func(d *Config) { d.Crisis = Crisis{} }),
		"nobody":         with(c.people(1), func(d *People) { d.Persons = []Person{} }),
		"no device":      with(c.roster(1), func(d *Roster) { d.Devices = []Device{} }),
		"recovery key":   with(c.draft(), func(d *OwnerRoot) { d.RecoveryKeys = []Bytes{make(Bytes, xwingPublicKey)} }),
		"one more role":  with(c.draft(), func(d *OwnerRoot) { d.Roles["wipe"] = Role{1, []PublicKey{newKey(t).Public()}} }),
		"without pins":   with(c.draft(), func(d *OwnerRoot) { d.HubPins = []Hash{} }),
		"for one device": with(c.config(1), func(d *Config) { d.Target = "d-1" }),
	} {
		if err := d.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, d := range map[string]Document{
		"clear text off loopback": with(c.config(1), func(d *Config) { d.CallOrigin = "http://call.example" }),
		"origin with a path":      with(c.config(1), func(d *Config) { d.CallOrigin = "https://call.example/" }),
		"origin with a user":      with(c.config(1), func(d *Config) { d.CallOrigin = "https://a@call.example" }),
		"codec":                   with(c.config(1), func(d *Config) { d.Video.Codecs = []string{"av1"} }),
		"odd width":               with(c.config(1), func(d *Config) { d.Video.Width = 641 }),
		"level 0":                 with(c.config(1), func(d *Config) { d.Policy.MinAssurance["patient"] = 0 }),
		"strange role":            with(c.config(1), func(d *Config) { d.Policy.MinAssurance["root"] = 1 }),
		"control in a text":       with(c.config(1), func(d *Config) { d.Crisis.Text = "a\x1b[2J" }),
		"writing direction":       with(c.config(1), func(d *Config) { d.Crisis.Place = "a\u202eb" }),
		"person without role":     with(c.people(1), func(d *People) { d.Persons[0].Roles = nil }),
		"credential twice": with(c.people(1), func(d *People) {
			d.Persons[0].Credentials = append(d.Persons[0].Credentials, d.Persons[0].Credentials[0])
		}),
		"person twice":  with(c.people(1), func(d *People) { d.Persons = append(d.Persons, d.Persons[0]) }),
		"device twice":  with(c.roster(1), func(d *Roster) { d.Devices = append(d.Devices, d.Devices[0]) }),
		"one key twice": with(c.roster(1), func(d *Roster) { d.Devices[0].SignSPKI = d.Devices[0].TLSSPKI }),
		"no key":        with(c.roster(1), func(d *Roster) { d.Devices[0].TLSSPKI = Bytes("x") }),
		"key with more behind it": with(c.roster(1), func(d *Roster) {
			d.Devices[0].TLSSPKI = append(d.Devices[0].TLSSPKI, 0)
		}),
		"device called all": with(c.roster(1), func(d *Roster) { d.Devices[0].ID = "all" }),
		"room with a slash": with(c.roster(1), func(d *Roster) { d.Devices[0].Room = "a/b" }),
		"protection":        with(c.roster(1), func(d *Roster) { d.Devices[0].KeyProtection = "none" }),
		"no list":           with(c.roster(1), func(d *Roster) { d.Devices = nil }),
		"end before start":  with(c.roster(1), func(d *Roster) { d.Expires = d.Issued }),
		"not UTC":           with(c.roster(1), func(d *Roster) { d.Issued = d.Issued.In(zone) }),
		"recovery key":      with(c.draft(), func(d *OwnerRoot) { d.RecoveryKeys = []Bytes{{1}} }),
		"owner in version 1": with(newClinic(t).roots[0], func(d *OwnerRoot) {
			d.Owner = Hash{1}
		}),
		"too many pins": with(c.draft(), func(d *OwnerRoot) { d.HubPins = make([]Hash, maxHubPins+1) }),
	} {
		wants(t, name, d.Validate(), ErrInvalid)
		if _, err := Sign(d, c.keys[RoleRoot][0]); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func with[T any](d *T, change func(*T)) *T {
	change(d)
	return d
}

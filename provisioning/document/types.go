package document

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"
)

// Roster lists the devices of the clinic. A device that it does not list is
// revoked.
type Roster struct {
	Header
	Devices []Device `json:"devices"`
}

// Device is a room's box. Its two keys are P-256, in DER SubjectPublicKeyInfo:
// whole and not as hashes, so that peers can verify without asking for them.
type Device struct {
	ID            string    `json:"id"`
	Room          string    `json:"room"`  // name in links and on the command line
	Label         string    `json:"label"` // name for people
	TLSSPKI       Bytes     `json:"tls_spki"`
	SignSPKI      Bytes     `json:"sign_spki"`
	KeyProtection string    `json:"key_protection"` // ProtectionTPM or ProtectionHost
	NotAfter      time.Time `json:"not_after"`
}

// Where a device's keys are.
const (
	ProtectionTPM  = "tpm"
	ProtectionHost = "host" // a file that only the daemon reads: not protected against theft of the disk
)

// Type is TypeRoster.
func (*Roster) Type() Type { return TypeRoster }

// Validate checks everything that the document shows by itself.
func (r *Roster) Validate() error {
	if err := r.validate(true); err != nil {
		return err
	}
	if r.Devices == nil {
		return invalid("devices is a list")
	}
	seen := make(map[string]bool)
	for _, d := range r.Devices {
		if err := d.validate(); err != nil {
			return err
		}
		for _, unique := range []string{"id " + d.ID, "key " + string(d.TLSSPKI), "key " + string(d.SignSPKI)} {
			if seen[unique] {
				return invalid("device %s: its id or one of its keys appears twice", d.ID)
			}
			seen[unique] = true
		}
	}
	return nil
}

func (d *Device) validate() error {
	switch {
	case !isName(d.ID) || d.ID == TargetAll:
		return invalid("device id %.40q: a name in lower case is expected", d.ID)
	case !isName(d.Room):
		return invalid("device %s: room %.40q: a name in lower case is expected", d.ID, d.Room)
	case !isText(d.Label, 1, 64):
		return invalid("device %s: label has 1 to 64 characters", d.ID)
	case d.KeyProtection != ProtectionTPM && d.KeyProtection != ProtectionHost:
		return invalid("device %s: key_protection is %q or %q", d.ID, ProtectionTPM, ProtectionHost)
	case !isTime(d.NotAfter):
		return invalid("device %s: not_after is a time in UTC", d.ID)
	}
	for _, spki := range []Bytes{d.TLSSPKI, d.SignSPKI} {
		if err := validSPKI(spki); err != nil {
			return invalid("device %s: %v", d.ID, err)
		}
	}
	return nil
}

// validSPKI refuses other than the one encoding of a key: two spellings of one
// key would be two entries.
func validSPKI(der []byte) error {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return fmt.Errorf("a key is no SubjectPublicKeyInfo")
	}
	again, err := x509.MarshalPKIXPublicKey(k)
	if err != nil || !bytes.Equal(der, again) {
		return fmt.Errorf("a key is not in its canonical form")
	}
	return nil
}

// ByTLS finds the device whose connection shows this key, unless its entry has
// run out.
func (r *Roster) ByTLS(spki []byte, now time.Time) (*Device, bool) {
	return r.find(now, func(d *Device) bool { return bytes.Equal(d.TLSSPKI, spki) })
}

// BySign finds the device that signs with this key, unless its entry has run out.
func (r *Roster) BySign(spki []byte, now time.Time) (*Device, bool) {
	return r.find(now, func(d *Device) bool { return bytes.Equal(d.SignSPKI, spki) })
}

// ByID finds a device by its id, unless its entry has run out.
func (r *Roster) ByID(id string, now time.Time) (*Device, bool) {
	return r.find(now, func(d *Device) bool { return d.ID == id })
}

func (r *Roster) find(now time.Time, is func(*Device) bool) (*Device, bool) {
	for i := range r.Devices {
		if d := &r.Devices[i]; is(d) && now.Before(d.NotAfter) {
			return d, true
		}
	}
	return nil, false
}

// People lists the clinic's staff. It holds pseudonyms, no names.
type People struct {
	Header
	Persons []Person `json:"persons"`
}

// Person is somebody whom the clinic knows by a passkey.
type Person struct {
	Pseudonym   string       `json:"pseudonym"`
	Roles       []string     `json:"roles"`
	Credentials []Credential `json:"credentials"`
}

// Credential is a WebAuthn credential (W3C WebAuthn Level 3).
type Credential struct {
	ID        Bytes     `json:"id"`
	PublicKey Bytes     `json:"public_key"` // COSE_Key, RFC 9052
	RPID      string    `json:"rp_id"`
	AAGUID    Bytes     `json:"aaguid"` // 16 bytes
	NotAfter  time.Time `json:"not_after"`
}

// Type is TypePeople.
func (*People) Type() Type { return TypePeople }

// personRoles are the roles of people in a clinic.
func personRoles() []string {
	return []string{"therapist", "patient", "guest", "frontdesk", "it", "auditor"}
}

// Validate checks everything that the document shows by itself.
func (p *People) Validate() error {
	if err := p.validate(true); err != nil {
		return err
	}
	if p.Persons == nil {
		return invalid("persons is a list")
	}
	seen := make(map[string]bool)
	for _, person := range p.Persons {
		if !isName(person.Pseudonym) || seen[person.Pseudonym] {
			return invalid("pseudonym %.40q: a name in lower case, used once, is expected", person.Pseudonym)
		}
		seen[person.Pseudonym] = true
		if err := person.validate(seen); err != nil {
			return err
		}
	}
	return nil
}

func (p *Person) validate(seen map[string]bool) error {
	if len(p.Roles) == 0 || p.Credentials == nil {
		return invalid("%s: roles and credentials are lists, and roles is not empty", p.Pseudonym)
	}
	for i, r := range p.Roles {
		if !slices.Contains(personRoles(), r) || slices.Contains(p.Roles[:i], r) {
			return invalid("%s: role %.40q is unknown or appears twice", p.Pseudonym, r)
		}
	}
	for _, c := range p.Credentials {
		id := "credential " + string(c.ID)
		switch {
		case len(c.ID) == 0 || len(c.ID) > 1023 || seen[id]:
			return invalid("%s: a credential's id has 1 to 1023 bytes and is used once", p.Pseudonym)
		case len(c.PublicKey) == 0 || len(c.PublicKey) > 4096 || len(c.AAGUID) != 16:
			return invalid("%s: a credential has a COSE key and an aaguid of 16 bytes", p.Pseudonym)
		case !isText(c.RPID, 1, 253) || !isTime(c.NotAfter):
			return invalid("%s: a credential has an rp_id and a not_after in UTC", p.Pseudonym)
		}
		seen[id] = true
	}
	return nil
}

// ByCredential finds whose credential this is, unless it has run out.
func (p *People) ByCredential(id []byte, now time.Time) (*Person, *Credential, bool) {
	for i := range p.Persons {
		for j := range p.Persons[i].Credentials {
			c := &p.Persons[i].Credentials[j]
			if bytes.Equal(c.ID, id) && now.Before(c.NotAfter) {
				return &p.Persons[i], c, true
			}
		}
	}
	return nil, nil, false
}

// Config is the whole desired state of the devices that it is for.
type Config struct {
	Header
	CallOrigin string `json:"call_origin"` // scheme, host and port of the call page
	Video      Video  `json:"video"`
	Audio      Audio  `json:"audio"`
	Policy     Policy `json:"policy"`
	Crisis     Crisis `json:"crisis"`
}

// Video is what a room sends.
type Video struct {
	Codecs     []string `json:"codecs"` // "vp8", "h264"; the first that works is used
	Width      int      `json:"width"`
	Height     int      `json:"height"`
	FPS        int      `json:"fps"`
	MaxBitrate int      `json:"max_bitrate"` // bit/s
}

// Audio is what a room sends.
type Audio struct {
	Bitrate int `json:"bitrate"` // bit/s, constant
}

// Policy is what the clinic demands of people who take part.
type Policy struct {
	// MinAssurance is, by role, how a person must have been confirmed: 3 passkey
	// in people, 2 the clinic's identity provider, 1 the hub's word.
	MinAssurance map[string]int `json:"min_assurance"`
}

// Assurance is the least level for a role. A role that the clinic did not name
// needs the highest.
func (p Policy) Assurance(role string) int {
	if level, ok := p.MinAssurance[role]; ok {
		return level
	}
	return 3
}

// Crisis is the help that a room's screen names. Each may be empty.
type Crisis struct {
	Line  string `json:"line"`  // telephone number
	Text  string `json:"text"`  // a sentence
	Place string `json:"place"` // where in the building
}

// Type is TypeConfig.
func (*Config) Type() Type { return TypeConfig }

// Validate checks everything that the document shows by itself.
func (c *Config) Validate() error {
	if err := c.validate(false); err != nil {
		return err
	}
	if err := validOrigin(c.CallOrigin); err != nil {
		return invalid("call_origin: %v", err)
	}
	v := c.Video
	for i, codec := range v.Codecs {
		if codec != "vp8" && codec != "h264" || slices.Contains(v.Codecs[:i], codec) {
			return invalid("video.codecs lists \"vp8\" and \"h264\", each at most once")
		}
	}
	switch {
	case len(v.Codecs) == 0:
		return invalid("video.codecs is empty")
	case !within(v.Width, 160, 1920) || !within(v.Height, 90, 1080) || v.Width%2 != 0 || v.Height%2 != 0:
		return invalid("video is 160×90 to 1920×1080, both even")
	case !within(v.FPS, 5, 60):
		return invalid("video.fps is 5 to 60")
	case !within(v.MaxBitrate, 100_000, 20_000_000):
		return invalid("video.max_bitrate is 100000 to 20000000 bit/s")
	case !within(c.Audio.Bitrate, 16_000, 128_000):
		return invalid("audio.bitrate is 16000 to 128000 bit/s")
	case !isText(c.Crisis.Line, 0, 40) || !isText(c.Crisis.Text, 0, 280) || !isText(c.Crisis.Place, 0, 140):
		return invalid("crisis: line, text and place have at most 40, 280 and 140 characters")
	case c.Policy.MinAssurance == nil:
		return invalid("policy.min_assurance is missing")
	}
	for role, level := range c.Policy.MinAssurance {
		if !slices.Contains(personRoles(), role) || !within(level, 1, 3) {
			return invalid("policy.min_assurance: %.40q: %d", role, level)
		}
	}
	return nil
}

func validOrigin(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme+"://"+u.Host != s {
		return fmt.Errorf("%.80q is not scheme://host[:port]", s)
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%.80q: https is required, except on loopback", s)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// maxSerial is what a JavaScript number holds exactly: the call page reads the
// same documents.
const maxSerial = 1<<53 - 1

func (h *Header) validate(everybody bool) error {
	switch {
	case h.Owner.IsZero():
		return invalid("owner is missing")
	case h.RootVersion == 0 || h.Serial == 0:
		return invalid("root_version and serial start at 1")
	case h.Serial > maxSerial:
		return invalid("serial is at most %d", uint64(maxSerial))
	case everybody && h.Target != TargetAll:
		return invalid("target of this document is %q", TargetAll)
	case !isName(h.Target):
		return invalid("target is %q or a device's id", TargetAll)
	}
	return validTimes(h.Issued, h.Expires)
}

func validTimes(issued, expires time.Time) error {
	if !isTime(issued) || !isTime(expires) || !issued.Before(expires) {
		return invalid("issued and expires are times in UTC, in this order")
	}
	return nil
}

func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, a...))
}

func isTime(t time.Time) bool {
	_, offset := t.Zone()
	return !t.IsZero() && offset == 0
}

func within(n, low, high int) bool { return low <= n && n <= high }

// isName tells whether s is 1 to 63 of a-z, 0-9 and inner hyphens (RFC 1123
// section 2.1): such names need no quoting anywhere.
func isName(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
}

// isText tells whether s can stand on a screen: least to most characters, none
// of them a control or a change of writing direction.
func isText(s string, least, most int) bool {
	for _, c := range s {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == utf8.RuneError {
			return false
		}
	}
	return within(utf8.RuneCountInString(s), least, most)
}

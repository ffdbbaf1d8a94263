package hub

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Config is the hub's configuration file (YAML). Unknown names are refused.
type Config struct {
	// State is the folder of the database and the devices listener's key; mode 0700. No default.
	State string `yaml:"state"`
	// CallOrigin is the origin of the call page: scheme, host and port, without a path. Links begin with it, and it
	// is the one Origin that the people listener answers. No default.
	CallOrigin string `yaml:"call_origin"`
	// ConsoleOrigin is the origin of the console for the clinic's staff. Its host is not the call page's: each host is
	// a relying party for passkeys of its own. Default: none, and then the people listener answers the call page alone.
	ConsoleOrigin string `yaml:"console_origin"`
	// Page serves the call page. Without a listen address another web server does.
	Page Web `yaml:"page"`
	// People is the listener for browsers.
	People Web `yaml:"people"`
	// Devices is the listener for rooms and alcovectl, always TLS 1.3 with the key of `alcove-hub init`.
	Devices Devices `yaml:"devices"`
	// Admin is the Unix socket of `alcove-hub session`. Default: admin.sock in State.
	Admin Admin `yaml:"admin"`
	// Metrics is the listener for Prometheus.
	Metrics Metrics `yaml:"metrics"`
	// LiveKit is the media server: a child of the hub, or an external one.
	LiveKit LiveKit `yaml:"livekit"`
	// Sessions are the rules of appointments.
	Sessions Sessions `yaml:"sessions"`
	// OIDC is the clinic's identity provider. Default: none.
	OIDC OIDC `yaml:"oidc"`
}

// Web is a listener for browsers.
type Web struct {
	// Listen is host:port. Default of page: none; of people: 127.0.0.1:8443.
	Listen string `yaml:"listen"`
	// URL is what browsers call the listener: scheme, host and port. Default of people: from Listen. Unused for page.
	URL string `yaml:"url"`
	// TLSCert and TLSKey are PEM files. Without them the listener is plain HTTP, which is allowed on loopback alone.
	TLSCert string `yaml:"tls_cert"`
	TLSKey  string `yaml:"tls_key"`
}

// Devices is the listener for rooms.
type Devices struct {
	// Listen is host:port. Default: 127.0.0.1:8444.
	Listen string `yaml:"listen"`
	// URL is what rooms call the listener: https, host and port. Default: from Listen.
	URL string `yaml:"url"`
}

// Admin is the front desk's socket.
type Admin struct {
	// Socket is a path; the socket has mode 0600.
	Socket string `yaml:"socket"`
}

// Metrics is the listener for Prometheus.
type Metrics struct {
	// Listen is host:port; "off" is none. Default: 127.0.0.1:9470.
	Listen string `yaml:"listen"`
}

// LiveKit is the media server.
type LiveKit struct {
	// URL of an external LiveKit (ws, wss, http or https). Default: none, a child is started.
	URL string `yaml:"url"`
	// Key and Secret of the external LiveKit's API; the file must then be unreadable for others.
	Key    string `yaml:"key"`
	Secret string `yaml:"secret"`
	// NodeIP is the child's address for media. Default: 127.0.0.1.
	NodeIP string `yaml:"node_ip"`
	// UDPPort is the child's one port for media. Default: 7882.
	UDPPort int `yaml:"udp_port"`
	// TCPPort is the child's port for media over TCP; it listens on every address. Default: 0, none.
	TCPPort int `yaml:"tcp_port"`
	// SignalPort is the child's port for signalling, on 127.0.0.1. Default: 7880.
	SignalPort int `yaml:"signal_port"`
}

// Sessions are the rules of appointments.
type Sessions struct {
	// Early is how long before its start a session can be joined and opened, as in 15m. Default: 15m.
	Early time.Duration `yaml:"early"`
	// Overrun is how long after its end a session may still run. Default: 2h.
	Overrun time.Duration `yaml:"overrun"`
}

// OIDC is the clinic's identity provider (OpenID Connect). Its redirect URIs are call_origin and console_origin, each
// with a slash behind.
type OIDC struct {
	// Issuer is the provider's issuer, https except on loopback. Without it there is no provider.
	Issuer string `yaml:"issuer"`
	// ClientID and ClientSecret are the hub's at the provider; with a secret the file must be unreadable for others.
	ClientID     string `yaml:"client_id"`
	ClientSecret string `yaml:"client_secret"`
	// RolesClaim is the claim of the ID token that lists the person's roles by name: therapist, frontdesk, it, auditor.
	// Default: alcove_roles.
	RolesClaim string `yaml:"roles_claim"`
	// ACR lists the authentication contexts (acr) in which the provider asks for more than one factor. They are asked
	// for. A token that shows none of them must carry the method (amr) "mfa". Default: none.
	ACR []string `yaml:"acr"`
}

func (o OIDC) validate() error {
	if o.Issuer == "" {
		if o.ClientID != "" || o.ClientSecret != "" || len(o.ACR) > 0 {
			return errors.New("oidc: client_id, client_secret and acr belong to an issuer")
		}
		return nil
	}
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("oidc.issuer: a URL without query is expected")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopbackHost(u.Hostname())) {
		return errors.New("oidc.issuer: https is needed off loopback")
	}
	if o.ClientID == "" || o.RolesClaim == "" || slices.Contains(o.ACR, "") {
		return errors.New("oidc: client_id and roles_claim are needed, and no acr is empty")
	}
	return nil
}

// Defaults returns a configuration with every default set.
func Defaults() Config {
	return Config{
		People:   Web{Listen: "127.0.0.1:8443"},
		Devices:  Devices{Listen: "127.0.0.1:8444"},
		Metrics:  Metrics{Listen: "127.0.0.1:9470"},
		LiveKit:  LiveKit{NodeIP: "127.0.0.1", UDPPort: 7882, SignalPort: 7880},
		Sessions: Sessions{Early: 15 * time.Minute, Overrun: 2 * time.Hour},
		OIDC:     OIDC{RolesClaim: "alcove_roles"},
	}
}

// LoadConfig reads and checks a configuration file.
func LoadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := ParseConfig(raw)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	if (c.LiveKit.Secret != "" || c.OIDC.ClientSecret != "") && info.Mode().Perm()&0o077 != 0 {
		return Config{}, fmt.Errorf("configuration %s holds a secret and others can read it: chmod 600", path)
	}
	return c, nil
}

// ParseConfig reads and checks a configuration.
func ParseConfig(raw []byte) (Config, error) {
	c := Defaults()
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		return Config{}, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("one YAML document is expected")
	}
	c.fill()
	return c, c.Validate()
}

// fill derives what follows from other fields.
func (c *Config) fill() {
	if c.Admin.Socket == "" && c.State != "" {
		c.Admin.Socket = filepath.Join(c.State, "admin.sock")
	}
	if c.People.URL == "" {
		c.People.URL = map[bool]string{true: "http://", false: "https://"}[c.People.TLSCert == ""] + c.People.Listen
	}
	if c.Devices.URL == "" {
		c.Devices.URL = "https://" + c.Devices.Listen
	}
}

// Validate refuses configurations that would be unsafe or could not work.
func (c Config) Validate() error {
	if c.State == "" {
		return errors.New("state: name the folder for the hub's database and key")
	}
	call, err := origin(c.CallOrigin)
	if err != nil {
		return fmt.Errorf("call_origin: %w", err)
	}
	people, err := origin(c.People.URL)
	if err != nil {
		return fmt.Errorf("people.url: %w", err)
	}
	devices, err := origin(c.Devices.URL)
	if err != nil {
		return fmt.Errorf("devices.url: %w", err)
	}
	if c.ConsoleOrigin != "" {
		console, err := origin(c.ConsoleOrigin)
		if err != nil {
			return fmt.Errorf("console_origin: %w", err)
		}
		if console.Scheme == "http" && !loopbackHost(console.Hostname()) {
			return errors.New("console_origin: http is allowed on loopback alone")
		}
		if related(console.Hostname(), call.Hostname()) {
			return errors.New("console_origin: the console needs a host of its own, neither the call page's nor one below or above it")
		}
	}
	switch {
	case devices.Scheme != "https":
		return errors.New("devices.url: it must begin with https://")
	case c.CallOrigin == c.People.URL:
		return errors.New("call_origin: the page needs an origin of its own, apart from people.url")
	case people.Scheme == "http" && !loopbackHost(people.Hostname()), call.Scheme == "http" && !loopbackHost(call.Hostname()):
		return errors.New("call_origin and people.url: http is allowed on loopback alone")
	case c.Sessions.Early < 0 || c.Sessions.Early > 24*time.Hour:
		return errors.New("sessions.early: between 0 and 24h")
	case c.Sessions.Overrun < 0 || c.Sessions.Overrun > 12*time.Hour:
		return errors.New("sessions.overrun: between 0 and 12h")
	case len(c.Admin.Socket) > 100:
		return errors.New("admin.socket: the path is longer than a Unix socket's may be (100 bytes)")
	}
	for _, v := range []struct {
		name string
		web  Web
	}{{"page", c.Page}, {"people", c.People}} {
		if err := v.web.validate(v.name); err != nil {
			return err
		}
	}
	if _, _, err := net.SplitHostPort(c.Devices.Listen); err != nil {
		return fmt.Errorf("devices.listen: %w", err)
	}
	if c.Metrics.Listen != "off" {
		if _, _, err := net.SplitHostPort(c.Metrics.Listen); err != nil {
			return fmt.Errorf("metrics.listen: %w", err)
		}
	}
	return errors.Join(c.LiveKit.validate(), c.OIDC.validate())
}

// related reports whether a page on one of the hosts could claim passkeys of the other: WebAuthn lets a page name any
// domain that its own host ends in (Level 3, 5.1.2; HTML, "is a registrable domain suffix of or is equal to").
func related(a, b string) bool {
	return a == b || strings.HasSuffix(a, "."+b) || strings.HasSuffix(b, "."+a)
}

func (w Web) validate(name string) error {
	if w.Listen == "" {
		if name == "page" {
			return nil
		}
		return fmt.Errorf("%s.listen: name an address", name)
	}
	if _, _, err := net.SplitHostPort(w.Listen); err != nil {
		return fmt.Errorf("%s.listen: %w", name, err)
	}
	if (w.TLSCert == "") != (w.TLSKey == "") {
		return fmt.Errorf("%s: tls_cert and tls_key belong together", name)
	}
	if w.TLSCert == "" && !loopbackListener(w.Listen) {
		return fmt.Errorf("%s.listen: %s is not on loopback, so tls_cert and tls_key are needed", name, w.Listen)
	}
	return nil
}

func (l LiveKit) validate() error {
	if l.URL != "" {
		u, err := url.Parse(l.URL)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return errors.New("livekit.url: a URL with scheme, host and port is expected")
		}
		switch u.Scheme {
		case "wss", "https":
		case "ws", "http":
			if !loopbackHost(u.Hostname()) {
				return errors.New("livekit.url: wss or https is needed off loopback")
			}
		default:
			return errors.New("livekit.url: ws, wss, http or https is expected")
		}
		if l.Key == "" || len(l.Secret) < 32 {
			return errors.New("livekit: url needs key and a secret of at least 32 characters")
		}
		return nil
	}
	if l.Key != "" || l.Secret != "" {
		return errors.New("livekit: key and secret belong to url; the child's are made at each start")
	}
	if _, err := netip.ParseAddr(l.NodeIP); err != nil {
		return fmt.Errorf("livekit.node_ip: %w", err)
	}
	return nil
}

// Loopback reports whether nothing of the hub can be reached from another machine.
func (c Config) Loopback() bool {
	for _, listen := range []string{c.Page.Listen, c.People.Listen, c.Devices.Listen, c.Metrics.Listen} {
		if listen != "" && listen != "off" && !loopbackListener(listen) {
			return false
		}
	}
	if c.LiveKit.URL != "" {
		u, err := url.Parse(c.LiveKit.URL)
		return err == nil && loopbackHost(u.Hostname())
	}
	ip, err := netip.ParseAddr(c.LiveKit.NodeIP)
	return err == nil && ip.IsLoopback() && c.LiveKit.TCPPort == 0
}

// loopbackListener knows addresses and no names: what a name means can change after the check.
func loopbackListener(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func loopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// origin reads scheme://host[:port] and nothing more.
func origin(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Scheme+"://"+u.Host != s {
		return nil, fmt.Errorf("%q: scheme, host and port without a path are expected, as in https://call.clinic.example", s)
	}
	return u, nil
}

package hub

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodConfig = `
state: /var/lib/alcove-hub
call_origin: https://call.clinic.example
people: { listen: "0.0.0.0:443", url: "https://hub.clinic.example", tls_cert: /c.pem, tls_key: /k.pem }
devices: { listen: "0.0.0.0:8444", url: "https://hub.clinic.example:8444" }
livekit: { node_ip: 192.0.2.10 }
`

func TestConfig(t *testing.T) {
	c, err := ParseConfig([]byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	if c.Loopback() || c.LiveKit.UDPPort != 7882 || c.Admin.Socket != "/var/lib/alcove-hub/admin.sock" || c.Metrics.Listen != "127.0.0.1:9470" {
		t.Errorf("%+v", c)
	}
	for name, change := range map[string][2]string{
		"unknown name":           {"state:", "stat:"},
		"another document":       {"livekit:", "---\nlivekit:"},
		"no TLS off loopback":    {", tls_cert: /c.pem, tls_key: /k.pem", ""},
		"half of TLS":            {", tls_key: /k.pem", ""},
		"http off loopback":      {"https://call.clinic.example", "http://call.clinic.example"},
		"origin with a path":     {"https://call.clinic.example", "https://call.clinic.example/"},
		"page on people's":       {"https://call.clinic.example", "https://hub.clinic.example"},
		"devices without TLS":    {"https://hub.clinic.example:8444", "http://hub.clinic.example:8444"},
		"secret without URL":     {"node_ip: 192.0.2.10", "secret: x"},
		"clear LiveKit":          {"node_ip: 192.0.2.10", "url: ws://livekit.example, key: k, secret: " + strings.Repeat("s", 32)},
		"short LiveKit secret":   {"node_ip: 192.0.2.10", "url: wss://livekit.example, key: k, secret: s"},
		"no such address":        {"192.0.2.10", "here"},
		"a listener by its name": {"0.0.0.0:443\"", "443\""},
	} {
		text := strings.Replace(goodConfig, change[0], change[1], 1)
		if text == goodConfig {
			t.Fatalf("%s changes nothing", name)
		}
		if _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for listen, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": false, ":1": false, "0.0.0.0:1": false, "192.0.2.1:1": false} {
		if got := loopbackListener(listen); got != want {
			t.Errorf("loopbackListener(%q) = %v", listen, got)
		}
	}
}

func TestSecretsInReadableFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.yaml")
	text := strings.Replace(goodConfig, "node_ip: 192.0.2.10", "url: wss://livekit.example, key: k, secret: "+strings.Repeat("s", 32), 1)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a secret that others can read: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(path); err != nil {
		t.Error(err)
	}
}

func TestOIDCConfig(t *testing.T) {
	c := testConfig(t)
	good := OIDC{Issuer: "https://idp.clinic.example/realm", ClientID: "hub", RolesClaim: "alcove_roles", ACR: []string{"mfa"}}
	if c.OIDC = good; c.Validate() != nil {
		t.Error(c.Validate())
	}
	for name, change := range map[string]func(*OIDC){
		"http":       func(o *OIDC) { o.Issuer = "http://idp.clinic.example" },
		"no host":    func(o *OIDC) { o.Issuer = "https://" },
		"a query":    func(o *OIDC) { o.Issuer += "?a=b" },
		"a password": func(o *OIDC) { o.Issuer = "https://a:b@idp.clinic.example" },
		"no issuer":  func(o *OIDC) { o.Issuer = "" },
		"no client":  func(o *OIDC) { o.ClientID = "" },
		"no claim":   func(o *OIDC) { o.RolesClaim = "" },
		"empty acr":  func(o *OIDC) { o.ACR = []string{""} },
	} {
		c.OIDC = good
		if change(&c.OIDC); c.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Package sfu runs the LiveKit server that the hub brings along, and speaks to whichever LiveKit server the hub uses.
//
// Child is the process `alcove-hub sfu`: the hub's own binary started again, so that a crash in the media path never
// takes sessions and documents with it. Supervisor keeps one running. Client makes rooms and tokens, at the child or
// at an external LiveKit (configured by URL, key and secret) by the same code. Proxy carries browsers' and rooms'
// signalling from the hub's TLS listeners to the child.
//
// Promises: the signal port listens on loopback alone; beside it the child opens exactly the UDP port that is
// configured, and the TCP port if one is; development mode, pprof and LiveKit's Prometheus port are never on; the
// API secret is made at each start, travels through an inherited pipe, and stands in no file, argument or
// environment. The child ends when the hub does, however the hub ended. The hub's log repeats LiveKit's fixed
// message texts and none of its fields, which hold addresses and identities.
//
// Not protected: an SFU sees who sends how much and when. It holds no key of the media (daemon/e2ee).
//
// This is the only package that imports livekit-server.
package sfu

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"gopkg.in/yaml.v3"
)

// Config of the child.
type Config struct {
	// SignalPort is the TCP port on 127.0.0.1 for signalling and the room API.
	SignalPort int `json:"signal_port"`
	// UDPPort is the one UDP port for media.
	UDPPort int `json:"udp_port"`
	// TCPPort is the port for media over TCP; 0 is off. LiveKit opens it on every address of the machine.
	TCPPort int `json:"tcp_port"`
	// NodeIP is the address that clients send media to.
	NodeIP netip.Addr `json:"node_ip"`
	// Key and Secret authorise the hub and sign tokens.
	Key    string `json:"key"`
	Secret string `json:"secret"`
}

// Validate refuses what would not run or would open more than it says.
func (c Config) Validate() error {
	port := func(p int) bool { return p > 0 && p < 65536 }
	switch {
	case !port(c.SignalPort):
		return errors.New("signal port is not between 1 and 65535")
	case !port(c.UDPPort):
		return errors.New("UDP port is not between 1 and 65535")
	case c.TCPPort != 0 && !port(c.TCPPort):
		return errors.New("TCP port is not between 1 and 65535, or 0 for none")
	case c.TCPPort == c.SignalPort:
		return errors.New("signal port and TCP port are the same")
	case !c.NodeIP.IsValid() || c.NodeIP.IsUnspecified() || c.NodeIP.IsMulticast():
		return errors.New("node IP is no address that clients can send to")
	case c.TCPPort != 0 && c.NodeIP.IsLoopback():
		return errors.New("a TCP port would listen on every address although the node IP is on loopback")
	case c.Key == "" || len(c.Secret) < 32:
		return errors.New("API key or secret is missing, or the secret is shorter than 32 characters")
	}
	return nil
}

// roomLimit is how many participants a room takes: one room device, four people, and those whose former connection
// has not timed out yet.
const roomLimit = 10

// idle is how long LiveKit keeps an empty room, in seconds. The hub deletes rooms when sessions end; this bounds what
// stays when it cannot.
const idle = 3600

// yaml returns LiveKit's configuration. Everything that would open a port or trust more is spelled out.
func (c Config) yaml() (string, error) {
	type m = map[string]any
	rtc := m{
		"udp_port":        c.UDPPort,
		"tcp_port":        c.TCPPort,
		"node_ip":         c.NodeIP.String(),
		"use_external_ip": false, // would ask STUN servers on the internet
		"use_mdns":        false,
	}
	switch {
	case c.NodeIP.IsLoopback():
		rtc["enable_loopback_candidate"] = true
		rtc["interfaces"] = m{"includes": []string{"lo"}}
		rtc["ips"] = m{"includes": []string{netip.PrefixFrom(c.NodeIP, c.NodeIP.BitLen()).String()}}
	case local(c.NodeIP):
		rtc["ips"] = m{"includes": []string{netip.PrefixFrom(c.NodeIP, c.NodeIP.BitLen()).String()}}
	}
	raw, err := yaml.Marshal(m{
		"port":               c.SignalPort,
		"bind_addresses":     []string{"127.0.0.1"},
		"development":        false,
		"keys":               m{c.Key: c.Secret},
		"rtc":                rtc,
		"turn":               m{"enabled": false},
		"enable_data_tracks": false,
		"logging":            m{"json": true, "level": "warn"},
		"room": m{
			"auto_create": false, "max_participants": roomLimit, "empty_timeout": idle, "departure_timeout": idle,
			"enable_remote_unmute": false,
		},
	})
	return string(raw), err
}

// local reports whether the address is one of this machine's own; behind NAT it is not.
func local(ip netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip.Unmap() {
			return true
		}
	}
	return false
}

func decodeConfig(raw []byte) (Config, error) {
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	return c, c.Validate()
}

// NewConfig returns a configuration with a key and a secret of its own, which nobody needs to know twice.
func NewConfig(nodeIP netip.Addr, signalPort, udpPort, tcpPort int) Config {
	secret := make([]byte, 36)
	rand.Read(secret) // never fails (crypto/rand, Go 1.24)
	return Config{
		SignalPort: signalPort, UDPPort: udpPort, TCPPort: tcpPort, NodeIP: nodeIP,
		Key: "hub", Secret: base64.RawURLEncoding.EncodeToString(secret),
	}
}

package settings

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// Ports, where the file names none.
const (
	puppetPort   = 8140
	puppetdbPort = 8081
	memberPort   = 8154
	metricsPort  = 9155
)

// Load reads the file for this host. Whoever can write it can run commands as the
// member's user, so it is refused if others than its owner can. Mistakes in it are
// Errors.
func Load(path string) (*Settings, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("settings %s: no regular file", path)
	}
	if mode := fi.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("settings %s: its mode %04o lets others write it, and it says which commands are run: chmod go-w %[1]s", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return Parse(path, data, ThisHost())
}

// Parse understands data as the file called name, on a host. Its errors are Errors.
func Parse(name string, data []byte, host Host) (*Settings, error) {
	r := &reader{file: name}
	s := r.settings(r.document(data), host)
	if err := r.err(); err != nil {
		return nil, err
	}
	s.File = name
	return s, nil
}

func (r *reader) settings(m *mapping, host Host) *Settings {
	if len(r.errors) > 0 { // it is no file of settings, which was said
		return nil
	}
	s := &Settings{
		Port: puppetPort, Weight: 10, Interval: 2 * time.Second,
		State: "/var/lib/puppetsrv-member", Socket: "/run/puppetsrv-member/member.sock",
	}
	s.identity(m, host)
	read(m, "camaster", &s.Camaster, hostName)
	read(m, "port", &s.Port, number(1, 65535))
	read(m, "weight", &s.Weight, number(1, 65535))
	readList(m, "nodes", "the certnames of the DNS servers, as [ns1.example.net, ns2.example.net]", &s.Nodes, hostName)
	if len(s.Nodes) == 0 && (!m.has("nodes") || len(r.errors) == 0) {
		m.errf("nodes", "required: the certnames of all DNS servers, as [ns1.example.net, ns2.example.net]")
	}
	s.gossip(m.mapping("gossip"), m)
	read(m, "listen", &s.Listen, addrPort(memberPort))
	if !s.Listen.IsValid() {
		s.Listen = netip.AddrPortFrom(s.Gossip.Bind.Addr(), memberPort)
	}
	read(m, "state", &s.State, absolute)
	read(m, "socket", &s.Socket, absolute)
	read(m, "metrics", &s.Metrics, addrPort(metricsPort))
	s.puppet(m.mapping("puppet"))
	s.puppetserver(m.mapping("puppetserver"), host)
	s.roles(m.mapping("roles"), host)
	s.CA = s.Roles.Any()
	read(m, "ca", &s.CA, truth)
	if s.Roles.Any() && !s.CA {
		m.errf("ca", "false, and `roles` has services that only a camaster opens: take one of the two out")
	}
	readCommands(m, "reload", &s.Reload)
	read(m, "interval", &s.Interval, duration(500*time.Millisecond, time.Minute))
	m.done()
	return s
}

func (s *Settings) identity(m *mapping, host Host) {
	read(m, "layout", &s.Layout, oneOf(Debian, Upstream))
	if !m.has("layout") {
		l, err := findLayout(host.Files)
		if err != nil {
			m.errf("layout", "%s", err)
		}
		s.Layout = l
	}
	read(m, "certname", &s.Certname, hostName)
	if !m.has("certname") {
		name, err := host.certname(s.Layout)
		if err != nil {
			m.errf("certname", "%s: write it", err)
		}
		s.Certname = name
	}
	read(m, "datacenter", &s.Datacenter, word)
	if !m.has("datacenter") {
		m.errf("datacenter", "required: the one that this host stands in, as the DNS servers name it")
	}
}

func (s *Settings) gossip(m, top *mapping) {
	g := &s.Gossip
	read(m, "bind", &g.Bind, addrPort(gossip.DefaultPort))
	switch {
	case !top.has("gossip"):
		top.errf("gossip", "required: write `gossip:` and below it `bind`, an IP address of this host, and `key`")
	case !m.has("bind") && !m.broken:
		m.r.errf(m.line, m.join("bind"), "required: an IP address of this host")
	}
	read(m, "advertise", &g.Advertise, addrPort(0))
	if g.Advertise.IsValid() && g.Advertise.Addr().IsUnspecified() {
		m.errf("advertise", "%s: nobody can reach that: write the address that the others see", g.Advertise.Addr())
	}
	g.Join = s.Nodes
	readList(m, "join", "[ns1.example.net, ns2.example.net:7946]", &g.Join, seed)
	read(m, "key", &g.Key, absolute)
	if g.Key == "" && !m.has("key") && g.Bind.IsValid() && !g.Bind.Addr().IsLoopback() {
		m.errf("key", "required, for %s is no loopback address and anybody who reaches it could join: copy the DNS servers' key file here and name it", g.Bind.Addr())
	}
	read(m, "profile", &g.Profile, gossip.ParseProfile)
	m.done()
}

func (s *Settings) puppet(m *mapping) {
	at := layouts[s.Layout] // empty if there is none, which was said
	p := &s.Puppet
	*p = Puppet{SSLDir: at.ssldir, CADir: at.cadir, CAConfig: at.caConfig, Environments: at.environments}
	read(m, "ssldir", &p.SSLDir, absolute)
	p.Cert = filepath.Join(p.SSLDir, "certs", s.Certname+".pem")
	p.Key = filepath.Join(p.SSLDir, "private_keys", s.Certname+".pem")
	p.Authority = filepath.Join(p.SSLDir, "certs", "ca.pem")
	p.CRL = filepath.Join(p.SSLDir, "crl.pem")
	p.URL = "https://" + net.JoinHostPort(s.Certname, strconv.Itoa(s.Port))
	read(m, "cert", &p.Cert, absolute)
	read(m, "key", &p.Key, absolute)
	read(m, "ca", &p.Authority, absolute)
	read(m, "crl", &p.CRL, absolute)
	read(m, "cadir", &p.CADir, absolute)
	read(m, "ca_cfg", &p.CAConfig, absolute)
	read(m, "environments", &p.Environments, absolute)
	read(m, "url", &p.URL, address)
	m.done()
}

func (s *Settings) puppetserver(m *mapping, host Host) {
	p := &s.Puppetserver
	*p = Puppetserver{
		Restart:  []string{"systemctl", "restart", "puppetserver"},
		Defaults: firstThere(host.Files, puppetDefaults),
		Config:   layouts[s.Layout].puppetserver,
		Timeout:  5 * time.Minute, // TimeoutStartSec of the packages' unit
	}
	readCommand(m, "restart", &p.Restart)
	read(m, "defaults", &p.Defaults, absolute)
	read(m, "config", &p.Config, absolute)
	read(m, "timeout", &p.Timeout, duration(time.Second, time.Hour))
	m.done()
}

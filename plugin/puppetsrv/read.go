package puppetsrv

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pkgtls "github.com/coredns/coredns/plugin/pkg/tls"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// read understands the properties: first what others refer to.
func (b *builder) read(props []property) error {
	for _, z := range b.zones {
		io.WriteString(b.key, z+"\n")
	}
	readers := []struct {
		names []string
		read  func(property) error
	}{
		{[]string{"targets", "ca_target", "unhealthy", "priority", "puppetdb_port", "ttl"}, b.readAnswers},
		{[]string{"zonefile", "ns", "state", "fallthrough"}, b.readFiles},
		{[]string{"datacenter"}, b.readDatacenter},
		{[]string{"master"}, b.readMaster},
		{[]string{"distance", "camaster", "location"}, b.readPlaces},
		{[]string{"probe", "tls"}, b.readProbe},
		{[]string{"node", "gossip", "members", "crl", "admin", "admin_allow"}, b.readCluster},
	}
	for _, r := range readers {
		for _, p := range props {
			if !slices.Contains(r.names, p.name) {
				continue
			}
			if err := r.read(p); err != nil {
				return err
			}
			if p.name != "fallthrough" { // not the runtime's
				fmt.Fprintf(b.key, "%s %q\n", p.name, p.args)
			}
		}
	}
	return nil
}

func (b *builder) readAnswers(p property) (err error) {
	t := &b.topology
	var n int
	switch p.name {
	case "targets":
		n, err = p.choice("host", "service")
		t.Targets = topology.Targets(n)
	case "ca_target":
		n, err = p.choice("host", "camaster")
		t.CATarget = topology.CATarget(n)
	case "unhealthy":
		n, err = p.choice("demote", "omit")
		t.Unhealthy = topology.Unhealthy(n)
	case "puppetdb_port":
		if len(p.args) != 1 {
			return p.usage()
		}
		n, err = p.number("port", p.args[0], 1, 65535)
		t.PuppetDBPort = uint16(n)
	case "ttl":
		if len(p.args) != 1 {
			return p.usage()
		}
		n, err = p.number("seconds", p.args[0], 1, 3600)
		b.ttl = uint32(n)
	case "priority":
		if len(p.args) != 2 {
			return p.usage()
		}
		for i, to := range []*uint16{&t.Local, &t.Remote} {
			if n, err = p.number("priority", p.args[i], 0, 65535-2*topology.DownPenalty); err != nil {
				return err
			}
			*to = uint16(n)
		}
		if err := t.ValidatePriorities(); err != nil {
			return p.errf("%s", err)
		}
	}
	return err
}

func (b *builder) readFiles(p property) error {
	switch p.name {
	case "zonefile":
		if len(p.args) != 1 && len(p.args) != 2 {
			return p.usage()
		}
		origin := b.zones[0]
		if len(p.args) == 2 {
			origin = strings.ToLower(dns.Fqdn(p.args[1]))
		}
		if !slices.Contains(b.zones, origin) {
			return p.errf("zonefile: zone %s is not served here: the zones are %s", origin, strings.Join(b.zones, ", "))
		}
		if _, ok := b.files[origin]; ok {
			return p.errf("zonefile: zone %s has two zone files: keep one, or name another zone behind this one", origin)
		}
		b.files[origin] = b.path(p.args[0])
		b.written[[2]string{"zonefile", origin}] = p
	case "ns":
		if len(p.args) == 0 {
			return p.usage()
		}
		for _, a := range p.args {
			name, err := p.domain(a, b.zones[0])
			if err != nil {
				return err
			}
			b.ns = append(b.ns, name)
		}
	case "state":
		if len(p.args) != 1 {
			return p.usage()
		}
		dir, err := filepath.Abs(b.path(p.args[0]))
		if err != nil {
			return p.errf("state: %s", err)
		}
		if fi, err := os.Stat(dir); err == nil && !fi.IsDir() {
			return p.errf("state: %s is no directory", dir)
		}
		b.state = dir
		b.written[[2]string{"state", ""}] = p
	case "fallthrough":
		b.fall.SetZonesFromArgs(p.args)
	}
	return nil
}

// path is a file's path; a relative one is below the `root` plugin's directory.
func (b *builder) path(s string) string {
	if b.root != "" && !filepath.IsAbs(s) {
		return filepath.Join(b.root, s)
	}
	return s
}

func (b *builder) readDatacenter(p property) error {
	if len(p.args) != 1 && len(p.args) != 2 {
		return p.usage()
	}
	name := p.args[0]
	if b.topology.Datacenter(name) != nil {
		return p.errf("datacenter %s is given twice", name)
	}
	domain, err := p.domain(p.args[len(p.args)-1], b.zones[0])
	if err != nil {
		return err
	}
	for _, d := range b.topology.Datacenters {
		if d.Domain == domain {
			return p.errf("datacenter %s: domain %s is already datacenter %s's", name, domain, d.Name)
		}
	}
	b.written[[2]string{"datacenter", name}] = p
	b.topology.Datacenters = append(b.topology.Datacenters, topology.Datacenter{Name: name, Domain: domain})
	return nil
}

func (b *builder) readMaster(p property) error {
	if len(p.args) < 2 {
		return p.usage()
	}
	host, err := p.domain(p.args[0], b.zones[0])
	if err != nil {
		return err
	}
	if b.topology.Master(host) != nil {
		return p.errf("master %s is given twice", host)
	}
	dc := b.topology.Datacenter(p.args[1])
	if dc == nil {
		return p.errf("master %s: unknown datacenter %q: add `datacenter %s`, or use one of: %s", host, p.args[1], p.args[1], b.datacenters())
	}
	m := topology.Master{Host: host, Datacenter: dc.Name, Port: defaultPort, Weight: defaultWeight}
	service := strings.SplitN(host, ".", 2)[0]
	rest := p.args[2:]
	seen := make(map[string]bool)
	for len(rest) > 0 {
		word := rest[0]
		if seen[word] {
			return p.errf("master %s: %q is given twice", host, word)
		}
		seen[word] = true
		if rest = rest[1:]; word == "ca" {
			m.CA = true
			continue
		}
		if len(rest) == 0 {
			return p.errf("master %s: nothing behind %q: write `%s`", host, word, usages["master"])
		}
		switch word {
		case "port", "weight":
			n, err := p.number(word, rest[0], 1, 65535)
			if err != nil {
				return err
			}
			if word == "port" {
				m.Port = uint16(n)
			} else {
				m.Weight = uint16(n)
			}
			rest = rest[1:]
		case "service":
			service, rest = rest[0], rest[1:]
		case "address":
			if m.Addresses, rest, err = p.addresses(rest); err != nil {
				return err
			}
		default:
			return p.errf("master %s: unknown word %q: write `%s`", host, word, usages["master"])
		}
	}
	if seen["service"] && b.topology.Targets != topology.TargetsService {
		b.warnings = append(b.warnings, fmt.Sprintf("master %s: its service name is not used without `targets service`", host))
	}
	if b.topology.Targets == topology.TargetsService {
		if m.Service, err = p.domain(service, dc.Domain); err != nil {
			return err
		}
	}
	b.written[[2]string{"master", host}] = p
	b.topology.Masters = append(b.topology.Masters, m)
	return nil
}

func (b *builder) datacenters() string {
	var names []string
	for _, d := range b.topology.Datacenters {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}

func (b *builder) readPlaces(p property) error {
	t := &b.topology
	known := func(dc string) error {
		if t.Datacenter(dc) == nil {
			return p.errf("%s: unknown datacenter %q: use one of: %s", p.name, dc, b.datacenters())
		}
		return nil
	}
	switch p.name {
	case "distance":
		if len(p.args) != 3 {
			return p.usage()
		}
		for _, dc := range p.args[:2] {
			if err := known(dc); err != nil {
				return err
			}
		}
		if p.args[0] == p.args[1] {
			return p.errf("distance: %s has no distance to itself: name two datacenters", p.args[0])
		}
		n, err := p.number("distance", p.args[2], 1, t.MaxDistance())
		if err != nil {
			return err
		}
		pair := topology.PairOf(p.args[0], p.args[1])
		if _, ok := t.Distances[pair]; ok {
			return p.errf("distance %s %s is given twice: it holds in both directions", p.args[0], p.args[1])
		}
		t.Distances[pair] = n
	case "camaster":
		if len(p.args) != 2 {
			return p.usage()
		}
		var err error
		if t.CamasterName, err = p.domain(p.args[0], b.zones[0]); err != nil {
			return err
		}
		if t.Camaster, err = p.domain(p.args[1], b.zones[0]); err != nil {
			return err
		}
		b.written[[2]string{"camaster", ""}] = p
		if err := t.ValidateCamaster(); err != nil {
			return p.errf("%s", err)
		}
	case "location":
		if len(p.args) != 1 {
			return p.usage()
		}
		b.location = p.args[0]
		return known(p.args[0])
	}
	return nil
}

func (b *builder) readProbe(p property) error {
	if p.name == "tls" {
		return b.readTLS(p)
	}
	if slices.Equal(p.args, []string{"off"}) {
		b.probeOff = true
		return nil
	}
	if len(p.args) == 0 || len(p.args)%2 != 0 {
		return p.usage()
	}
	seen := make(map[string]bool)
	for i := 0; i < len(p.args); i += 2 {
		word, s := p.args[i], p.args[i+1]
		if seen[word] {
			return p.errf("probe: %q is given twice", word)
		}
		seen[word] = true
		var err error
		switch word {
		case "interval":
			b.schedule.Interval, err = p.duration(word, s, 100*time.Millisecond, time.Hour)
		case "timeout":
			b.schedule.Timeout, err = p.duration(word, s, 10*time.Millisecond, time.Minute)
		case "fall":
			b.threshold.Fall, err = p.number(word, s, 1, 100)
		case "rise":
			b.threshold.Rise, err = p.number(word, s, 1, 100)
		case "concurrency":
			b.schedule.Concurrency, err = p.number(word, s, 1, topology.MaxMasters)
		case "port":
			var n int
			n, err = p.number(word, s, 1, 65535)
			b.probePort = uint16(n)
		case "path":
			if !strings.HasPrefix(s, "/") || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
				err = p.errf("probe: path %q: must begin with / and hold no blanks, as in %s", s, defaultPath)
			}
			b.check.Path = s
		default:
			err = p.errf("probe: unknown word %q: write `%s`", word, usages["probe"])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) readTLS(p property) error {
	if len(p.args) != 1 && len(p.args) != 3 {
		return p.usage()
	}
	paths := make([]string, len(p.args))
	h := sha256.New()
	for i, a := range p.args {
		paths[i] = b.path(a)
		data, err := os.ReadFile(paths[i])
		if err != nil {
			return p.errf("tls: %s", err)
		}
		b.key.Write(data) // new files, new runtime
		h.Write(data)
	}
	b.tlsFiles, b.tlsSum = paths, h.Sum(nil)
	b.written[[2]string{"tls", ""}] = p
	cfg, err := pkgtls.NewTLSConfigFromArgs(paths...)
	if err != nil {
		return p.errf("tls: %s: write `%s`", err, usages["tls"])
	}
	b.check.TLS, b.hasTLS = cfg, true
	return nil
}

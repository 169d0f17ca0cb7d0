package puppetsrv

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/fall"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// Defaults, as the README gives them.
const (
	defaultPort         = 8140
	defaultPuppetDBPort = 8081
	defaultWeight       = 10
	defaultLocal        = 10
	defaultRemote       = 20
	defaultTTL          = 5
	defaultPath         = "/status/v1/simple"
	defaultConcurrency  = 256
)

// config is one understood block.
type config struct {
	zones    []string
	fall     fall.F
	node     node.Config
	place    func(err error) property // where what a start fails for was written
	warnings []string
}

// builder gathers what the properties say.
type builder struct {
	root  string
	zones []string
	key   hash.Hash // of everything that makes the runtime what it is
	// written is where a part was written, for what is found wrong with it later;
	// by part and name as in topology.Error, and "zonefile" with the zone.
	written map[[2]string]property

	topology  topology.Topology
	ttl       uint32
	files     map[string]string // zone -> file
	ns        []string
	location  string
	state     string
	fall      fall.F
	check     probe.Check
	schedule  probe.Schedule
	threshold health.Thresholds
	probePort uint16
	probeOff  bool
	hasTLS    bool
	tlsFiles  []string
	tlsSum    []byte // of what is in them
	cluster   clusterBuilder
	warnings  []string
}

// parse understands the plugin's block. It reads the files it names, starts
// nothing and changes nothing.
func parse(c *caddy.Controller) (*config, error) {
	if !c.Next() {
		return nil, c.ArgErr()
	}
	start := property{name: "puppetsrv", file: c.File(), line: c.Line()}
	b := &builder{
		root:    dnsserver.GetConfig(c).Root,
		key:     sha256.New(),
		written: make(map[[2]string]property),
		ttl:     defaultTTL,
		topology: topology.Topology{
			Local: defaultLocal, Remote: defaultRemote, PuppetDBPort: defaultPuppetDBPort,
			Distances: make(map[topology.Pair]int),
		},
		files:     make(map[string]string),
		check:     probe.Check{Path: defaultPath},
		schedule:  probe.Schedule{Interval: time.Second, Timeout: time.Second, Concurrency: defaultConcurrency},
		threshold: health.Thresholds{Rise: 2, Fall: 2},
		cluster:   clusterBuilder{allow: make(map[string][]string)},
	}
	var err error
	if b.zones, err = zones(start, c.RemainingArgs(), c.ServerBlockKeys); err != nil {
		return nil, err
	}
	keys := plugin.Zones(plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys))
	for _, z := range b.zones {
		if !keys.Contains(z) {
			b.warnings = append(b.warnings, fmt.Sprintf("zone %s is never asked for: it is in none of the server block's zones, %s", z, strings.Join(keys, ", ")))
		}
	}
	props, err := readBlock(c)
	if err != nil {
		return nil, err
	}
	if c.Next() {
		return nil, property{file: c.File(), line: c.Line()}.errf("%s", plugin.ErrOnce)
	}
	if err := b.read(props); err != nil {
		return nil, err
	}
	return b.config(start, dnsserver.GetConfig(c))
}

// zones are the arguments, else the server block's own.
func zones(p property, args, keys []string) ([]string, error) {
	for _, a := range args {
		if len(plugin.Host(a).NormalizeExact()) == 0 {
			return nil, p.errf("%q is no zone", a)
		}
	}
	var zones []string
	for _, z := range plugin.OriginsFromArgsOrServerBlock(args, keys) {
		if err := checkDomain(z); err != nil {
			return nil, p.errf("%q is no zone: %s", z, err)
		}
		if !slices.Contains(zones, z) {
			zones = append(zones, z)
		}
	}
	if len(zones) == 0 {
		return nil, p.errf("no zone: name one, as in `puppetsrv example.net`")
	}
	return zones, nil
}

// config joins what was read.
func (b *builder) config(start property, site *dnsserver.Config) (*config, error) {
	if !b.hasTLS && !b.probeOff {
		return nil, start.errf("no `tls`: the Puppet CA's certificate is needed to verify masters, as in `tls /etc/puppetlabs/puppet/ssl/certs/ca.pem`; without probes write `probe off`")
	}
	files := slices.Sorted(maps.Values(b.files))
	watch := &node.Watch{Files: files, Stamp: node.Stamp(files), Load: b.load, Log: log}
	plan, warnings, err := b.plan(&b.topology, b.key)
	if err != nil {
		return nil, b.place(err, start).errf("%s", err)
	}
	joined, err := b.clusterConfig(site)
	if err != nil {
		return nil, err
	}
	cfg := &config{zones: b.zones, fall: b.fall, place: b.placeOf, warnings: append(b.warnings, warnings...)}
	if len(b.ns) > 0 && len(b.files) == len(b.zones) {
		cfg.warnings = append(cfg.warnings, "`ns` is not used: every zone has a zone file")
	}
	fmt.Fprintf(b.key, "%q %v\n", b.state, b.files) // as found, below `root`
	if b.state == "" {
		cfg.warnings = append(cfg.warnings, "no `state` directory: serials are forgotten by a restart, and secondaries may then miss changes")
	}
	cfg.node = node.Config{
		Key:        hex.EncodeToString(b.key.Sum(nil)),
		Name:       b.zones[0],
		Plan:       plan,
		Thresholds: b.threshold,
		State:      b.state,
		Watch:      watch,
		Cluster:    joined,
		Log:        log,
		Hooks:      hooks(b.zones[0]),
	}
	if !b.probeOff {
		b.check.Observer = cmp.Or(b.cluster.name, observer())
		cfg.node.Probe = &node.Probe{Check: b.check, Schedule: b.schedule, Targets: b.targets(plan)}
	}
	return cfg, nil
}

// plan reads the zone files. What it reads goes to key, so that a reload with
// other files is another runtime.
func (b *builder) plan(t *topology.Topology, key io.Writer) (*zone.Plan, []string, error) {
	var statics []zone.Static
	for _, z := range b.zones {
		s, err := b.static(z)
		if err != nil {
			return nil, nil, topology.Errorf("zonefile", z, "%s", err)
		}
		for _, rr := range s.Records { // also what a zone file includes
			fmt.Fprintln(key, rr.String())
		}
		statics = append(statics, s)
	}
	// Of a master that has joined, the zone file knows better where it is.
	for i := len(b.topology.Masters); i < len(t.Masters); i++ {
		if m := &t.Masters[i]; slices.ContainsFunc(statics, func(s zone.Static) bool { return s.HasAddress(m.Host) }) {
			m.Addresses = nil
		}
	}
	return zone.NewPlan(t, b.ttl, statics)
}

// place is the property that err is about, or fallback.
func (b *builder) place(err error, fallback property) property {
	var e *topology.Error
	if errors.As(err, &e) {
		if p, ok := b.written[[2]string{e.Part, e.Name}]; ok {
			return p
		}
	}
	return fallback
}

// placeOf is the property that a runtime's failure to start is about.
func (b *builder) placeOf(err error) property {
	names := []string{"gossip", "admin"}
	if errors.Is(err, store.ErrLocked) {
		names = []string{"state"}
	}
	for _, n := range names {
		if p, ok := b.written[[2]string{n, ""}]; ok {
			return p
		}
	}
	return b.written[[2]string{"state", ""}]
}

// load makes another plan for a running node: of changed zone files, and with
// masters that have joined.
func (b *builder) load(joined []topology.Master) (*zone.Plan, []probe.Target, error) {
	t := b.topology
	t.Masters = slices.Clone(t.Masters)
	for _, m := range joined {
		if d := t.Datacenter(m.Datacenter); d != nil && t.Targets == topology.TargetsService {
			m.Service = strings.SplitN(m.Host, ".", 2)[0] + "." + d.Domain
		}
		t.Masters = append(t.Masters, m)
	}
	plan, warnings, err := b.plan(&t, io.Discard)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range warnings {
		log.Warningf("%s", w)
	}
	return plan, b.targets(plan), nil
}

func (b *builder) static(origin string) (zone.Static, error) {
	if path, ok := b.files[origin]; ok {
		return zone.ReadFile(path, origin)
	}
	return zone.Synthesize(origin, b.ns, b.ttl)
}

func (b *builder) targets(plan *zone.Plan) []probe.Target {
	t := plan.Topology
	targets := make([]probe.Target, len(t.Masters))
	for i := range t.Masters {
		m := &t.Masters[i]
		targets[i] = probe.Target{Subject: m.Host, Name: t.Target(m), Addresses: plan.Addresses(m), Port: m.Port}
		if b.probePort != 0 {
			targets[i].Port = b.probePort
		}
	}
	return targets
}

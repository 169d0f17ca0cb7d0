package settings_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/settings"
)

// debian is a Debian host with a database.
func debian() settings.Host {
	return settings.Host{
		Name: func() (string, error) { return "M1.example.net.", nil },
		Files: fstest.MapFS{
			"etc/puppet/puppet.conf":                       {},
			"etc/default/puppetserver":                     {},
			"var/lib/postgresql/15/main/PG_VERSION":        {},
			"var/lib/postgresql/15/other/not-the-usual":    {},
			"usr/lib/postgresql/15/bin/pg_ctl":             {},
			"etc/puppet/puppetserver/services.d/ca.cfg":    {},
			"etc/puppet/code/environments/production/x.pp": {},
		},
	}
}

func parse(t *testing.T, host settings.Host, lines ...string) (*settings.Settings, error) {
	t.Helper()
	return settings.Parse("member.yaml", []byte(strings.Join(lines, "\n")+"\n"), host)
}

// compare compares addresses by value.
var compare = cmp.Options{cmpopts.EquateComparable(netip.AddrPort{})}

const minimal = `datacenter: datacenter1
nodes: [ns1.example.net]
gossip: {bind: 127.0.0.1}
`

func TestTheLeast(t *testing.T) {
	got, err := settings.Parse("member.yaml", []byte(minimal), debian())
	if err != nil {
		t.Fatal(err)
	}
	want := &settings.Settings{
		File: "member.yaml", Layout: settings.Debian, Certname: "m1.example.net", Datacenter: "datacenter1", Port: 8140, Weight: 10,
		Nodes:  []string{"ns1.example.net"},
		Gossip: settings.Gossip{Bind: netip.MustParseAddrPort("127.0.0.1:7946"), Join: []string{"ns1.example.net"}},
		Listen: netip.MustParseAddrPort("127.0.0.1:8154"),
		State:  "/var/lib/puppetsrv-member", Socket: "/run/puppetsrv-member/member.sock",
		Puppet: settings.Puppet{
			SSLDir: "/var/lib/puppet/ssl", Cert: "/var/lib/puppet/ssl/certs/m1.example.net.pem", Key: "/var/lib/puppet/ssl/private_keys/m1.example.net.pem",
			Authority: "/var/lib/puppet/ssl/certs/ca.pem", CRL: "/var/lib/puppet/ssl/crl.pem", CADir: "/etc/puppet/puppetserver/ca",
			CAConfig: "/etc/puppet/puppetserver/services.d/ca.cfg", Environments: "/etc/puppet/code/environments", URL: "https://m1.example.net:8140",
		},
		Puppetserver: settings.Puppetserver{Restart: []string{"systemctl", "restart", "puppetserver"}, Defaults: "/etc/default/puppetserver", Config: "/etc/puppet/puppetserver/conf.d", Timeout: 5 * time.Minute},
		Interval:     2 * time.Second,
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Error(diff)
	}
}

func TestEmptyRolesHaveTheirDefaults(t *testing.T) {
	got, err := parse(t, debian(), minimal+"roles:\n  ca:\n  postgresql: {}\n  puppetdb:")
	if err != nil {
		t.Fatal(err)
	}
	want := settings.Roles{
		CA: &settings.CARole{Mode: settings.Hot, Gap: 1000, Rate: 32 << 20},
		PostgreSQL: &settings.PostgreSQLRole{
			Socket: "/var/run/postgresql", Port: 5432, User: "postgres", Database: "postgres", OSUser: "postgres",
			Data: "/var/lib/postgresql/15/main", Config: "/etc/postgresql/15/main", BinDir: "/usr/lib/postgresql/15/bin",
			Promote: "pg_promote", Fence: "stop", Rejoin: "print", MaxLag: 1 << 20,
			Start: []string{"systemctl", "start", "postgresql@15-main"}, Stop: []string{"systemctl", "stop", "postgresql@15-main"},
		},
		PuppetDB: &settings.PuppetDBRole{
			Mode: settings.Hot, URL: "https://m1.example.net:8081", Config: "/etc/puppetdb/conf.d", Timeout: 2 * time.Minute,
			Start: []string{"systemctl", "start", "puppetdb"}, Stop: []string{"systemctl", "stop", "puppetdb"},
		},
	}
	if diff := cmp.Diff(want, got.Roles); diff != "" {
		t.Error(diff)
	}
	if !got.CA {
		t.Error("a host with roles may become camaster")
	}
}

// whole has every key.
const whole = `# A comment.
layout: upstream
certname: M1.Example.net
datacenter: "datacenter1"
camaster: puppet-camaster.example.net
port: 8141
weight: 20
ca: true
nodes:
  - ns1.example.net
  - NS2.example.net.
gossip:
  bind: 192.0.2.11
  advertise: "[2001:db8::11]"
  join: [ns1.example.net:7950, 192.0.2.2, "[2001:db8::2]:7946"]
  key: /etc/puppetsrv/gossip.key
  profile: wan
listen: 192.0.2.12:9154
state: /srv/member/
socket: /run/m.sock
metrics: "[::1]:9200"
puppet:
  ssldir: /srv/ssl
  cert: /srv/cert.pem
  key: /srv/key.pem
  ca: /srv/ca.pem
  crl: /srv/crl.pem
  cadir: /srv/ca
  ca_cfg: /srv/ca.cfg
  environments: /srv/code
  url: https://localhost:8140/
puppetserver:
  restart: [rc-service, puppetserver, restart]
  defaults: /etc/conf.d/puppetserver
  config: /srv/puppetserver
  timeout: 90s
roles:
  ca:
    mode: service
    replicas: [m3.example.net]
    gap: 5000
    rate: 1MiB
    infra_crl: true
  postgresql:
    socket: /tmp
    port: 5433
    user: admin
    database: puppetdb
    os_user: pg
    data: /srv/pg
    config: /srv/pg/etc
    bindir: /opt/pg/bin
    promote: trigger
    trigger: /tmp/promote
    fence: read-only
    start: [/opt/pg/bin/start, "", 'x y']
    stop: [sh, -c, "stop it"]
    rejoin: run
    source: "host=puppet-camaster.example.net user=replicator"
    max_lag: 0
  puppetdb:
    mode: service
    url: http://localhost:8080
    config: /srv/puppetdb
    start: [svc, up]
    stop: [svc, down]
    timeout: 1m
  hooks:
    - name: dashboard
      open: [systemctl, start, puppetboard]
      close: [systemctl, stop, puppetboard]
      standby: [true]
      check: [systemctl, is-active, 1]
      timeout: 1m30s
    - {name: cron, open: [a], close: [b]}
reload: [[systemctl, reload, apache2], [x]]
interval: 500ms
`

func TestTheWhole(t *testing.T) {
	got, err := settings.Parse("member.yaml", []byte(whole), settings.Host{Files: fstest.MapFS{}})
	if err != nil {
		t.Fatal(err)
	}
	want := &settings.Settings{
		File: "member.yaml", Layout: settings.Upstream, Certname: "m1.example.net", Datacenter: "datacenter1", Port: 8141, Weight: 20, CA: true,
		Camaster: "puppet-camaster.example.net", Nodes: []string{"ns1.example.net", "ns2.example.net"},
		Gossip: settings.Gossip{
			Bind: netip.MustParseAddrPort("192.0.2.11:7946"), Advertise: netip.MustParseAddrPort("[2001:db8::11]:0"),
			Join: []string{"ns1.example.net:7950", "192.0.2.2", "[2001:db8::2]:7946"}, Key: "/etc/puppetsrv/gossip.key", Profile: gossip.WAN,
		},
		Listen: netip.MustParseAddrPort("192.0.2.12:9154"), State: "/srv/member", Socket: "/run/m.sock", Metrics: netip.MustParseAddrPort("[::1]:9200"),
		Puppet: settings.Puppet{
			SSLDir: "/srv/ssl", Cert: "/srv/cert.pem", Key: "/srv/key.pem", Authority: "/srv/ca.pem", CRL: "/srv/crl.pem",
			CADir: "/srv/ca", CAConfig: "/srv/ca.cfg", Environments: "/srv/code", URL: "https://localhost:8140",
		},
		Puppetserver: settings.Puppetserver{Restart: []string{"rc-service", "puppetserver", "restart"}, Defaults: "/etc/conf.d/puppetserver", Config: "/srv/puppetserver", Timeout: 90 * time.Second},
		Roles: settings.Roles{
			CA: &settings.CARole{Mode: settings.Service, Replicas: []string{"m3.example.net"}, Gap: 5000, Rate: 1 << 20, InfraCRL: true},
			PostgreSQL: &settings.PostgreSQLRole{
				Socket: "/tmp", Port: 5433, User: "admin", Database: "puppetdb", OSUser: "pg", Data: "/srv/pg", Config: "/srv/pg/etc", BinDir: "/opt/pg/bin",
				Promote: "trigger", Trigger: "/tmp/promote", Fence: "read-only", Start: []string{"/opt/pg/bin/start", "", "x y"}, Stop: []string{"sh", "-c", "stop it"},
				Rejoin: "run", Source: "host=puppet-camaster.example.net user=replicator",
			},
			PuppetDB: &settings.PuppetDBRole{Mode: settings.Service, URL: "http://localhost:8080", Config: "/srv/puppetdb",
				Start: []string{"svc", "up"}, Stop: []string{"svc", "down"}, Timeout: time.Minute},
			Hooks: []settings.Hook{
				{Name: "dashboard", Open: []string{"systemctl", "start", "puppetboard"}, Close: []string{"systemctl", "stop", "puppetboard"},
					Standby: []string{"true"}, Check: []string{"systemctl", "is-active", "1"}, Timeout: 90 * time.Second},
				{Name: "cron", Open: []string{"a"}, Close: []string{"b"}, Timeout: 30 * time.Second},
			},
		},
		Reload: [][]string{{"systemctl", "reload", "apache2"}, {"x"}}, Interval: 500 * time.Millisecond,
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Error(diff)
	}
}

// Each mistake is told with its line and what would be right; head is four lines.
const head = `layout: debian
certname: m1.example.net
datacenter: datacenter1
nodes: [ns1.example.net]
`

func TestMistakes(t *testing.T) {
	const gossipLine = "gossip: {bind: 127.0.0.1}\n"
	for _, c := range []struct{ name, file, want string }{
		{"empty", "", `member.yaml: no settings in it`},
		{"comments alone", "# nothing\n", `member.yaml: no settings in it`},
		{"a list", "- a\n", `member.yaml:1: a list: it has keys of its own, each on an indented line`},
		{"no text", "a: \xff\n", `member.yaml: no text in UTF-8`},
		{"too large", strings.Repeat("# x\n", 20000), `member.yaml: larger than 65536 bytes: this is no file of settings`},
		{"syntax", head + "gossip: {bind: 127.0.0.1\nport: 1\n", `member.yaml:6: YAML: ',' or '}' must be specified`},
		{"two documents", head + "---\na: b\n", `member.yaml:6: a second document: the file is one`},
		{"a key twice", head + gossipLine + "port: 1\nport: 2\n", `member.yaml:7: YAML: mapping key "port" already defined at [6:1]`},
		{"what is required", "layout: debian\ncertname: m1.example.net\n", `member.yaml:1: datacenter: required: the one that this host stands in, as the DNS servers name it
member.yaml:1: nodes: required: the certnames of all DNS servers, as [ns1.example.net, ns2.example.net]
member.yaml:1: gossip: required: write ` + "`gossip:` and below it `bind`" + `, an IP address of this host, and ` + "`key`"},
		{"slips", head + gossipLine + "prot: 1\nroles:\n  pupetdb: {}\n  ca: {gab: 1}\nsomething: 1\n", `member.yaml:6: unknown key "prot": did you mean port?
member.yaml:8: roles: unknown key "pupetdb": did you mean puppetdb?
member.yaml:9: roles.ca: unknown key "gab": did you mean gap?
member.yaml:10: unknown key "something": here are layout, certname, datacenter, camaster, port, weight, nodes, gossip, listen, state, socket, metrics, puppet, puppetserver, roles, ca, reload, interval`},
		{"keys that are no words", head + gossipLine + "1: x\n<<: {}\n", `member.yaml:6: unknown key "1"
member.yaml:7: "<<": keys are plain words here`},
		{"anchors", head + gossipLine + "state: &x /a\nsocket: *x\nport: !!int 3\npuppet: *x\nreload: *x\n", `member.yaml:6: state: anchors and aliases are not understood: write the value itself (quoted, if it begins with & or *)
member.yaml:7: socket: anchors and aliases are not understood: write the value itself (quoted, if it begins with & or *)
member.yaml:8: port: tags are not understood: write the value itself (quoted, if it begins with !)
member.yaml:9: puppet: anchors and aliases are not understood: write the value itself (quoted, if it begins with & or *)
member.yaml:10: reload: anchors and aliases are not understood: write the value itself (quoted, if it begins with & or *)`},
		{"wrong types", head + gossipLine + "port: [1]\nweight: {a: 1}\npuppet: 3\nreload: x\nstate:\nca: yes\n", `member.yaml:6: port: a list, where a single value belongs
member.yaml:7: weight: a mapping, where a single value belongs
member.yaml:8: puppet: "3": it has keys of its own, each on an indented line
member.yaml:9: reload: "x" is no list: write a list of commands, as [[systemctl, reload, apache2]]
member.yaml:10: state: no value: write one, or take the key out for its default
member.yaml:11: ca: "yes": true or false`},
		{"numbers", head + gossipLine + "port: 0\nweight: 0x10\nroles: {ca: {gap: 1e3}}\n", `member.yaml:6: port: "0": a whole number from 1 to 65535
member.yaml:7: weight: "0x10": a whole number from 1 to 65535
member.yaml:8: roles.ca.gap: "1e3": a whole number from 1 to 1000000`},
		{"times and sizes", head + gossipLine + "interval: 2\npuppetserver:\n  timeout: 2h\nroles:\n  ca: {rate: 1MB}\n  postgresql: {max_lag: 1.5MiB}\n",
			`member.yaml:6: interval: "2": a time with its unit, as 500ms, 30s or 2m, from 500ms to 1m
member.yaml:8: puppetserver.timeout: "2h": a time with its unit, as 500ms, 30s or 2m, from 1s to 1h
member.yaml:10: roles.ca.rate: "1MB": bytes, or a whole number of KiB, MiB or GiB, from 64KiB to 10GiB
member.yaml:11: roles.postgresql.max_lag: "1.5MiB": bytes, or a whole number of KiB, MiB or GiB, from 0 to 1024TiB`},
		{"more than there are bytes", head + gossipLine + "roles:\n  postgresql: {max_lag: 16777217TiB}\n", `member.yaml:7: roles.postgresql.max_lag: "16777217TiB": bytes, or a whole number of KiB, MiB or GiB, from 0 to 1024TiB`},
		{"words", "layout: redhat\n" + head[len("layout: debian\n"):] + "gossip: {bind: 127.0.0.1, profile: man}\nroles:\n  ca: {mode: warm}\n  postgresql: {promote: no, fence: maybe, rejoin: x}\n",
			`member.yaml:1: layout: "redhat": debian or upstream
member.yaml:5: gossip.profile: unknown profile "man": lan, wan or local
member.yaml:7: roles.ca.mode: "warm": hot or service
member.yaml:8: roles.postgresql.promote: "no": pg_promote, trigger or command
member.yaml:8: roles.postgresql.fence: "maybe": stop or read-only
member.yaml:8: roles.postgresql.rejoin: "x": print or run`},
		{"names", "layout: debian\ncertname: m_1..example\ndatacenter: a b\ncamaster: 192.0.2.1\nnodes: [ns1.example.net, NS1.example.net, 'x y']\ngossip: {bind: 127.0.0.1}\n",
			`member.yaml:2: certname: "m_1..example" is no host name: each part between dots has 1 to 63 characters
member.yaml:3: datacenter: "a b": write letters, digits, - and _
member.yaml:4: camaster: "192.0.2.1" is no host name: it is an address; certificates have names
member.yaml:5: nodes[1]: ns1.example.net is there twice
member.yaml:5: nodes[2]: "x y" is no host name: ' ' in it`},
		{"no nodes", "layout: debian\ncertname: m1.example.net\ndatacenter: d\nnodes: []\n" + gossipLine, `member.yaml:4: nodes: required: the certnames of all DNS servers, as [ns1.example.net, ns2.example.net]`},
		{"addresses", head + "gossip: {bind: ns1, advertise: 0.0.0.0, join: ['a:0', 'b b']}\nlisten: 192.0.2.1:0\nmetrics: localhost:9155\n",
			`member.yaml:5: gossip.bind: "ns1": an IP address of this host, with a port if it is not 7946: 192.0.2.11:7946, or "[2001:db8::11]:7946"
member.yaml:5: gossip.advertise: 0.0.0.0: nobody can reach that: write the address that the others see
member.yaml:5: gossip.join[0]: "a:0": its port is a whole number from 1 to 65535
member.yaml:5: gossip.join[1]: "b b" is no host name: ' ' in it
member.yaml:6: listen: "192.0.2.1:0": an IP address of this host, with a port if it is not 8154: 192.0.2.11:8154, or "[2001:db8::11]:8154"
member.yaml:7: metrics: "localhost:9155": an IP address of this host, with a port if it is not 9155: 192.0.2.11:9155, or "[2001:db8::11]:9155"`},
		{"no gossip key", head + "gossip:\n  bind: 192.0.2.11\n",
			`member.yaml:6: gossip.key: required, for 192.0.2.11 is no loopback address and anybody who reaches it could join: copy the DNS servers' key file here and name it`},
		{"no bind", head + "gossip: {key: /x}\n", `member.yaml:5: gossip.bind: required: an IP address of this host`},
		{"paths", head + gossipLine + "state: member\npuppet: {crl: ./crl.pem}\n", `member.yaml:6: state: "member": write an absolute path
member.yaml:7: puppet.crl: "./crl.pem": write an absolute path`},
		{"URLs", head + gossipLine + "puppet: {url: m1.example.net}\nroles:\n  puppetdb: {url: 'http://m1.example.net:8080'}\n", `member.yaml:6: puppet.url: "m1.example.net": write https://HOST:PORT and no more
member.yaml:8: roles.puppetdb.url: "http://m1.example.net:8080": without TLS only on this very host, as http://localhost:8080; write https://`},
		{"commands", head + gossipLine + "puppetserver: {restart: systemctl restart puppetserver}\nreload: [systemctl, [], [a b], [bin/x], [[a]]]\n",
			`member.yaml:6: puppetserver.restart: "systemctl restart puppetserver" is no list: write its words as a list, as [systemctl, restart, puppetserver]; no shell reads it, but [sh, -c, "..."] is allowed
member.yaml:7: reload[0]: "systemctl" is no command: write a list of commands, as [[systemctl, reload, apache2]]
member.yaml:7: reload[1]: no command: write its words as a list, as [systemctl, restart, puppetserver]; no shell reads it, but [sh, -c, "..."] is allowed
member.yaml:7: reload[2]: "a b" is no program: write its words as a list, as [systemctl, restart, puppetserver]; no shell reads it, but [sh, -c, "..."] is allowed
member.yaml:7: reload[3]: "bin/x": write the program's absolute path, or its name alone to have it looked for in PATH
member.yaml:7: reload[4][0]: a list, where a single value belongs`},
		{"a camaster that is none", head + gossipLine + "ca: false\nroles: {ca: }\n", "member.yaml:6: ca: false, and `roles` has services that only a camaster opens: take one of the two out"},
		{"promotion", head + gossipLine + "roles:\n  postgresql:\n    promote: trigger\n    promote_command: [x]\n    rejoin: run\n",
			"member.yaml:8: roles.postgresql.trigger: required with `promote: trigger`: promote_trigger_file's path\n" +
				"member.yaml:8: roles.postgresql.source: required with `rejoin: run`: how the camaster's database is reached, as \"host=puppet-camaster.example.net user=replicator\"\n" +
				"member.yaml:9: roles.postgresql.promote_command: it is used with `promote: command` alone: add that, or take this out"},
		{"a database in a strange place", head + gossipLine + "roles:\n  postgresql:\n    data: /srv/pg\n", `member.yaml:8: roles.postgresql.bindir: required, for /srv/pg is none of the usual places
member.yaml:8: roles.postgresql.socket: required, for /srv/pg is none of the usual places`},
		{"passwords", head + gossipLine + "roles:\n  postgresql: {source: 'host=x Password = y'}\n", `member.yaml:7: roles.postgresql.source: a password in it would be seen in logs and by every user of this host: put it into a file and write passfile=FILE`},
		{"passwords in a URI", head + gossipLine + "roles:\n  postgresql: {source: 'postgresql://u:p@h/db'}\n", `member.yaml:7: roles.postgresql.source: a password in it would be seen in logs and by every user of this host: put it into a file and write passfile=FILE`},
		{"no connection string", head + gossipLine + "roles:\n  postgresql: {source: m1}\n", `member.yaml:7: roles.postgresql.source: "m1": a connection string as "host=puppet-camaster.example.net user=replicator"`},
		{"hooks", head + gossipLine + "roles:\n  hooks:\n  - open: [a]\n    close: [b]\n  - {name: x, open: [a], close: [b]}\n  - {name: x, open: [a]}\n  - {name: ca, open: [a], close: [b], tiemout: 3s}\n  - y\n",
			`member.yaml:8: roles.hooks[0].name: required: a word for people, as dashboard
member.yaml:11: roles.hooks[2].close: required: its words as a list, as [systemctl, restart, puppetserver]; no shell reads it, but [sh, -c, "..."] is allowed
member.yaml:11: roles.hooks[2].name: x is there twice
member.yaml:12: roles.hooks[3].name: ca is another service's
member.yaml:12: roles.hooks[3]: unknown key "tiemout": did you mean timeout?
member.yaml:13: roles.hooks[4]: "y": it has keys of its own, each on an indented line`},
		{"control characters", head + gossipLine + "state: \"/a\\x1b[0m\"\n", `member.yaml:6: state: a control character in "/a\x1b[0m"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := settings.Parse("member.yaml", []byte(c.file), debian())
			if err == nil {
				t.Fatalf("it is taken: %+v", s)
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Error(diff)
			}
			var one settings.Error
			if !errors.As(err, &one) || one.File != "member.yaml" {
				t.Errorf("%T is no Error", err)
			}
		})
	}
}

func TestManyMistakes(t *testing.T) {
	_, err := parse(t, debian(), head+"gossip: {bind: 127.0.0.1}\nreload:", strings.Repeat("- x\n", 50))
	var all settings.Errors
	if !errors.As(err, &all) || len(all) != 21 || all[20].Text != "and 30 more" {
		t.Errorf("%v", err)
	}
	_, err = parse(t, debian(), head+"gossip: {bind: 127.0.0.1}\nreload:", strings.Repeat("- [x]\n", 257))
	if err == nil || err.Error() != "member.yaml:7: reload: 257 items: at most 256" {
		t.Errorf("%v", err)
	}
	_, err = parse(t, debian(), head+"gossip: {bind: 127.0.0.1}\nstate: /"+strings.Repeat("x", 5000))
	if err == nil || err.Error() != "member.yaml:6: state: 5001 bytes: at most 4096" {
		t.Errorf("%v", err)
	}
}

func TestLayoutByTheHost(t *testing.T) {
	file := []byte("certname: m1.example.net\ndatacenter: d\nnodes: [ns1]\ngossip: {bind: 127.0.0.1}\n")
	for _, c := range []struct {
		name  string
		files fstest.MapFS
		want  settings.Layout
		err   string
	}{
		{"debian", fstest.MapFS{"etc/puppet/puppet.conf": {}}, settings.Debian, ""},
		{"upstream", fstest.MapFS{"etc/puppetlabs/puppet/puppet.conf": {}}, settings.Upstream, ""},
		{"upstream, and a directory that the other left", fstest.MapFS{"etc/puppetlabs/puppet/puppet.conf": {}, "etc/puppet/hiera.yaml": {}}, settings.Upstream, ""},
		{"a directory alone", fstest.MapFS{"etc/puppet/hiera.yaml": {}}, settings.Debian, ""},
		{"both", fstest.MapFS{"etc/puppetlabs/puppet/puppet.conf": {}, "etc/puppet/puppet.conf": {}}, "", "member.yaml:1: layout: this host has both /etc/puppet/puppet.conf and /etc/puppetlabs/puppet/puppet.conf: write `layout: debian` or `layout: upstream`"},
		{"neither", fstest.MapFS{}, "", "member.yaml:1: layout: this host has neither /etc/puppet nor /etc/puppetlabs/puppet: write `layout: debian` or `layout: upstream`"},
	} {
		s, err := settings.Parse("member.yaml", file, settings.Host{Files: c.files})
		switch {
		case c.err == "" && (err != nil || s.Layout != c.want):
			t.Errorf("%s: %v, %v", c.name, s, err)
		case c.err != "" && (err == nil || err.Error() != c.err):
			t.Errorf("%s: %v", c.name, err)
		}
	}
	s, err := settings.Parse("m", file, settings.Host{Files: fstest.MapFS{"etc/puppetlabs/puppet/puppet.conf": {}, "etc/sysconfig/puppetserver": {}}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Puppet.CRL != "/etc/puppetlabs/puppet/ssl/crl.pem" || s.Puppet.CADir != "/etc/puppetlabs/puppetserver/ca" || s.Puppetserver.Defaults != "/etc/sysconfig/puppetserver" {
		t.Errorf("%+v", s)
	}
}

func TestCertname(t *testing.T) {
	for _, c := range []struct{ name, conf, host, want, err string }{
		{"of the host", "", "M1.example.net", "m1.example.net", ""},
		{"of puppet.conf", "[main]\ncertname = Puppet1.example.net # ours\n", "m1.example.net", "puppet1.example.net", ""},
		{"of the server's section", "certname=a.example.net\n[server]\n  certname=b.example.net\n[agent]\ncertname=c.example.net\n", "m1.example.net", "b.example.net", ""},
		{"a comment", "[main]\n#certname = x.example.net\n", "m1.example.net", "m1.example.net", ""},
		{"no domain", "", "m1", "", "member.yaml:1: certname: this host's name, m1, has no domain: write it"},
		{"a wrong one", "[main]\ncertname = a b\n", "m1.example.net", "", `member.yaml:1: certname: certname in /etc/puppet/puppet.conf: "a b" is no host name: ' ' in it: write it`},
	} {
		s, err := settings.Parse("member.yaml", []byte(minimal), settings.Host{
			Name:  func() (string, error) { return c.host, nil },
			Files: fstest.MapFS{"etc/puppet/puppet.conf": {Data: []byte(c.conf)}},
		})
		switch {
		case c.err == "" && (err != nil || s.Certname != c.want):
			t.Errorf("%s: %+v, %v", c.name, s, err)
		case c.err != "" && (err == nil || err.Error() != c.err):
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestDatabaseByTheHost(t *testing.T) {
	for _, c := range []struct{ name, dirs, keys, data, bindir, config, unit, err string }{
		{name: "Debian", dirs: "var/lib/postgresql/15/main", data: "/var/lib/postgresql/15/main", bindir: "/usr/lib/postgresql/15/bin", config: "/etc/postgresql/15/main", unit: "postgresql@15-main"},
		{name: "postgresql.org's on Red Hat", dirs: "var/lib/pgsql/16/data", data: "/var/lib/pgsql/16/data", bindir: "/usr/pgsql-16/bin", config: "/var/lib/pgsql/16/data", unit: "postgresql-16"},
		{name: "Red Hat's", dirs: "var/lib/pgsql/data", data: "/var/lib/pgsql/data", bindir: "/usr/bin", config: "/var/lib/pgsql/data", unit: "postgresql"},
		{name: "two", dirs: "var/lib/postgresql/15/main var/lib/postgresql/17/main", err: "member.yaml:5: roles.postgresql.data: required: there is more than one database: /var/lib/postgresql/15/main, /var/lib/postgresql/17/main: write it"},
		{name: "one of two", dirs: "var/lib/postgresql/15/main var/lib/postgresql/17/main", keys: "data: /var/lib/postgresql/17/main", data: "/var/lib/postgresql/17/main", bindir: "/usr/lib/postgresql/17/bin", config: "/etc/postgresql/17/main", unit: "postgresql@17-main"},
		{name: "none", err: "member.yaml:5: roles.postgresql.data: required: no database is in any of the usual places: write it"},
		{name: "of one's own", keys: "data: /srv/pg, bindir: /opt/bin, socket: /tmp", data: "/srv/pg", bindir: "/opt/bin", config: "/srv/pg"},
	} {
		files := fstest.MapFS{"etc/puppet/puppet.conf": {}}
		for _, d := range strings.Fields(c.dirs) {
			files[d+"/PG_VERSION"] = &fstest.MapFile{}
		}
		host := debian()
		host.Files = files
		s, err := settings.Parse("member.yaml", []byte(minimal+"roles:\n  postgresql: {"+c.keys+"}\n"), host)
		switch {
		case c.err != "" && (err == nil || err.Error() != c.err):
			t.Errorf("%s: %v", c.name, err)
		case c.err == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.err == "":
			p := s.Roles.PostgreSQL
			unit := strings.TrimPrefix(strings.Join(p.Start, " "), "systemctl start ")
			if p.Data != c.data || p.BinDir != c.bindir || p.Config != c.config || unit != c.unit {
				t.Errorf("%s: %+v", c.name, p)
			}
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "member.yaml")
	if err := os.WriteFile(path, []byte(whole), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := settings.Load(path); err != nil || s.File != path {
		t.Errorf("%+v, %v", s, err)
	}
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := settings.Load(path); err == nil || !strings.Contains(err.Error(), "its mode 0664 lets others write it, and it says which commands are run: chmod go-w "+path) {
		t.Errorf("%v", err)
	}
	if _, err := settings.Load(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := settings.Load(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("%v", err)
	}
}

// The man page names every key of the file.
func TestManPageNamesTheKeys(t *testing.T) {
	const page = "../../cmd/puppetsrv-member/README.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := settings.Keys([]byte(whole), debian())
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) < 70 {
		t.Fatalf("only %d keys", len(keys))
	}
	for _, key := range keys {
		key = strings.ReplaceAll(strings.ReplaceAll(key, "[0]", ""), "[1]", "")
		if !strings.Contains(string(data), "`"+key+"`") {
			t.Errorf("%s does not name `%s`", page, key)
		}
	}
}

// No bytes whatsoever make it panic, and what is taken is complete.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", minimal, whole, head + "gossip: {bind: 192.0.2.1}", "a: &a [*a]", "? {a: b}\n: c", "- - -", "a:\n- b\n-", "\t", "{", "a: |\n x", "roles: {hooks: [{}]}", "a: !!x", "<<: 1", "%YAML 1.2\n---\na: b"} {
		f.Add([]byte(s))
	}
	host := debian()
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := settings.Parse("member.yaml", data, host)
		if (s == nil) != (err != nil) {
			t.Fatalf("%+v, %v", s, err)
		}
		if err != nil {
			var all settings.Errors
			if !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("%T", err)
			}
			for _, e := range all {
				if e.Text == "" || e.File != "member.yaml" || strings.ContainsAny(e.Error(), "\n\x1b") {
					t.Fatalf("%q", e.Error())
				}
			}
			return
		}
		if s.Certname == "" || s.Datacenter == "" || len(s.Nodes) == 0 || !s.Gossip.Bind.IsValid() || !s.Listen.IsValid() ||
			!filepath.IsAbs(s.State) || !filepath.IsAbs(s.Socket) || s.Interval <= 0 || len(s.Puppetserver.Restart) == 0 {
			t.Fatalf("taken: %+v", s)
		}
	})
}

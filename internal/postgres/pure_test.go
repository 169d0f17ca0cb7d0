package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"pgregory.net/rapid"
)

func TestConninfo(t *testing.T) {
	for _, tt := range []struct{ in, out, err string }{
		{"host=m1 user=replicator", "host=m1 user=replicator", ""},
		{" host = 'm 1'  user='it''s'", "", "no key=value"},
		{`host=m1 user='it\'s \\ a'`, `host=m1 user='it\'s \\ a'`, ""},
		{`host=m1 user=a\ b`, `host=m1 user='a b'`, ""},
		{"host=m1 user=r host=m2", "user=r host=m2", ""},
		{"host=m1 user=''", "", "it has no user"},
		{"user=r", "", "it has no host"},
		{"host=m1", "", "it has no user"},
		{"host=m1 user=r password=secret", "", "passfile="},
		{"host=m1 user=r service=x", "", "leave that out"},
		{"postgres://r@m1/", "", "it is a URI"},
		{"host=m1 user='r", "", "no closing quote"},
		{"host=m1\x00 user=r", "", "null byte"},
		{"m1", "", "no key=value"},
		{"host=m1 user=r x=" + strings.Repeat("y", maxConninfo), "", "at most 4096"},
	} {
		c, err := parseSource(tt.in)
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || tt.err == "" && err != nil {
			t.Errorf("%q: %v, want %q", clip(tt.in), err, tt.err)
		}
		if err == nil && c.String() != tt.out {
			t.Errorf("%q: %q, want %q", tt.in, c, tt.out)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a password is in %v", err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var c conninfo
		for _, key := range []string{"a", "bc", "d_e"} {
			c = c.with(key, rapid.StringMatching(`[ -~\t]{0,12}`).Draw(t, "value"))
		}
		again, err := parseConninfo(c.String())
		if err != nil || fmt.Sprint(again) != fmt.Sprint(c) {
			t.Fatalf("%q: %q, %v", c, again, err)
		}
	})
}

func FuzzParseConninfo(f *testing.F) {
	f.Add(`host=m1 user='it\'s' x = y`)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseConninfo(s)
		if err != nil {
			return
		}
		if again, err := parseConninfo(c.String()); err != nil || again.String() != c.String() {
			t.Fatalf("%q: %q, %v", c, again, err)
		}
	})
}

func TestWithConninfo(t *testing.T) {
	c := conninfo{{"host", "m1"}, {"user", "it's"}}
	const want = `primary_conninfo = 'host=m1 user=''it\\''s'''` + "\n"
	for in, out := range map[string]string{
		"":                                  want,
		"# a\nfsync = 'on'":                 "# a\nfsync = 'on'\n" + want,
		"primary_conninfo = 'old'\na = 1\n": "a = 1\n" + want,
		" PRIMARY_CONNINFO='old'":           want,
		"primary_conninfos = 1\n":           "primary_conninfos = 1\n" + want,
		want:                                want,
	} {
		if got := withConninfo(in, c); got != out {
			t.Errorf("%q: %q, want %q", in, got, out)
		}
	}
}

// Where two servers' logs part, and whether one can follow the other.
func TestFork(t *testing.T) {
	for _, tt := range []struct {
		name          string
		local, source history
		at            branch
		follows       bool
	}{
		{"the same timeline", history{{1, 100}}, history{{1, 200}}, branch{1, 100}, true},
		{"the same timeline, and the source was asked before", history{{1, 300}}, history{{1, 200}}, branch{1, 200}, true},
		{"promoted where it ended", history{{1, 100}}, history{{1, 100}, {2, 200}}, branch{1, 100}, true},
		{"promoted behind where it ended", history{{1, 90}}, history{{1, 100}, {2, 200}}, branch{1, 90}, true},
		{"promoted before where it ended", history{{1, 101}}, history{{1, 100}, {2, 200}}, branch{1, 100}, false},
		{"twice", history{{1, 100}, {2, 150}}, history{{1, 100}, {2, 150}, {3, 200}}, branch{2, 150}, true},
		{"twice, and parted with the second", history{{1, 100}, {2, 151}}, history{{1, 100}, {2, 150}, {3, 200}}, branch{2, 150}, false},
		{"both were promoted, and took the same number", history{{1, 100}, {2, 120}}, history{{1, 110}, {2, 200}}, branch{1, 100}, false},
		{"it was promoted, and the source was not", history{{1, 100}, {2, 120}}, history{{1, 110}}, branch{1, 100}, false},
		{"both were promoted, to different numbers", history{{1, 100}, {2, 120}}, history{{1, 100}, {3, 200}}, branch{1, 100}, false},
		{"nothing in common", history{{5, 100}}, history{{1, 200}}, branch{}, false},
	} {
		if at, follows := fork(tt.local, tt.source); at != tt.at || follows != tt.follows {
			t.Errorf("%s: %v %v, want %v %v", tt.name, at, follows, tt.at, tt.follows)
		}
	}
}

func TestParseHistory(t *testing.T) {
	h, err := parseHistory("1\t0/3000148\tno recovery target specified\n\n# x\n2\t0/5000000\tbefore 2000-01-01\n", 3, 0x6000000)
	if err != nil || fmt.Sprint(h) != fmt.Sprint(history{{1, 0x3000148}, {2, 0x5000000}, {3, 0x6000000}}) {
		t.Errorf("%v, %v", h, err)
	}
	for _, bad := range []string{"1", "x\t0/1", "1\tx", "2\t0/2\n1\t0/3", "1\t0/5\n2\t0/4", "3\t0/1", "4\t0/1"} {
		if h, err := parseHistory(bad, 3, 1<<30); err == nil {
			t.Errorf("%q is %v", bad, h)
		}
	}
}

// The end of a shutdown checkpoint, also where it crosses pages and segments. That a
// standby receives exactly up to there is shown with real servers.
func TestAfterCheckpoint(t *testing.T) {
	for _, tt := range []struct{ at, want evidence.LSN }{
		{0x1500718, 0x1500790},
		{0x1501FE8, 0x1502078},              // 24 bytes on this page; a header of 24
		{16<<20 - 8, 16<<20 + 40 + 106 + 6}, // a segment's header of 40
		{8192*3 - 114 - 6, 8192 * 3},
	} {
		c := control{state: shutDown, checkpoint: tt.at, segment: 16 << 20, page: 8192}
		if got := c.afterCheckpoint(); got != tt.want {
			t.Errorf("at %X: %X, want %X", uint64(tt.at), uint64(got), uint64(tt.want))
		}
	}
}

func TestParseControl(t *testing.T) {
	const good = `Database system identifier:           7711000639132007428
Database cluster state:               shut down in recovery
Latest checkpoint location:           0/1500718
Latest checkpoint's TimeLineID:       1
Minimum recovery ending location:     0/1600000
Min recovery ending loc's timeline:   2
wal_log_hints setting:                off
Bytes per WAL segment:                16777216
WAL block size:                       8192
Data page checksum version:           1
`
	c, err := parseControl(good)
	if err != nil {
		t.Fatal(err)
	}
	if end, tli := c.end(); end != 0x1600000 || tli != 2 || !c.clean() || !c.standby() || !c.hints || c.system != "7711000639132007428" {
		t.Errorf("%+v", c)
	}
	for line := range strings.Lines(good) {
		if _, err := parseControl(strings.Replace(good, line, "", 1)); err == nil {
			t.Errorf("without %q", line)
		}
	}
	if _, err := parseControl("WARNING: Calculated CRC checksum does not match value stored in file.\n" + good); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%v", err)
	}
}

// What a standby says of its primary: the primary writes on, is asked, and what it
// wrote arrives late. At every time, all that was committed before Current is here.
func TestKnownKeepsItsPromise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		type commit struct {
			at  time.Time
			lsn evidence.LSN
		}
		var k known
		var commits []commit
		written, received, timeline := evidence.LSN(1), evidence.LSN(0), uint32(1)
		asked := 0
		for range rapid.IntRange(1, 400).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(1, 1000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 4).Draw(t, "event") {
			case 0, 1:
				written += evidence.LSN(rapid.IntRange(1, 1000).Draw(t, "bytes"))
				commits = append(commits, commit{now, written})
			case 2: // asked; more is written before the answer comes
				before := now
				x := written
				asked++
				k.hear("s", timeline, x, now)
				k.note(mark{before, timeline, x})
			case 3:
				received += evidence.LSN(rapid.IntRange(0, int(written-received)).Draw(t, "received"))
			case 4:
				if rapid.IntRange(0, 20).Draw(t, "promotion") == 0 { // another primary, that has what is here
					timeline++
					for len(commits) > 0 && commits[len(commits)-1].lsn > received {
						commits = commits[:len(commits)-1]
					}
					written = received
				}
			}
			k.reach(timeline, received)
			k.clamp(now)
			if len(k.marks) > maxMarks {
				t.Fatalf("%d marks", len(k.marks))
			}
			for _, c := range commits {
				if c.at.Before(k.Current) && c.lsn > received {
					t.Fatalf("committed at %s, at %d; received %d, and Current is %s", c.at, c.lsn, received, k.Current)
				}
			}
			if k.Timeline == timeline && k.Written > written {
				t.Fatalf("heard of %d, and %d are written", k.Written, written)
			}
		}
		// When all has come, what was asked last is Current.
		if asked > 0 && k.Timeline == timeline {
			before := now
			k.hear("s", timeline, written, now)
			k.note(mark{before, timeline, written})
			k.reach(timeline, written)
			if !k.Current.Equal(before) {
				t.Fatalf("all is here, and Current is %s before", before.Sub(k.Current))
			}
		}
	})
}

func TestKnownForgetsWhatIsNoMore(t *testing.T) {
	now := time.Now()
	k := known{}
	k.hear("s", 1, 1000, now)
	k.hear("s", 1, 900, now.Add(time.Second)) // an old answer
	if k.Written != 1000 || !k.Heard.Equal(now) {
		t.Errorf("an old answer counts: %+v", k)
	}
	k.hear("s", 2, 800, now.Add(2*time.Second)) // the old primary had more, and is gone
	if k.Written != 800 || k.Timeline != 2 {
		t.Errorf("%+v", k)
	}
	k.hear("s", 1, 2000, now.Add(3*time.Second)) // it is there again
	if k.Written != 800 {
		t.Errorf("a primary that was replaced counts: %+v", k)
	}
	k.Current = now.Add(time.Hour)
	k.clamp(now)
	if !k.Current.IsZero() || k.Heard.After(now) {
		t.Errorf("a time to come: %+v", k)
	}
	disk := store.Dir(t.TempDir())
	if err := k.write(disk); err != nil {
		t.Fatal(err)
	}
	if again, err := readKnown(disk); err != nil || again.Written != k.Written || again.Timeline != 2 || !again.Heard.Equal(k.Heard) {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestConfigErrors(t *testing.T) {
	bin := t.TempDir()
	for _, p := range []string{"pg_ctl", "pg_controldata", "pg_rewind", "pg_basebackup"} {
		if err := os.WriteFile(filepath.Join(bin, p), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	good := Config{Data: "/var/lib/postgresql/15/main", BinDir: bin, Disk: store.Dir(t.TempDir())}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Config){
		"data is missing: it is the data directory": func(c *Config) { c.Data = "" },
		`data is "main": it has to be an absolute`:  func(c *Config) { c.Data = "main" },
		"a directory of the server's own":           func(c *Config) { c.Data = "/" },
		"socket is \"@x\"":                          func(c *Config) { c.Socket = "@x" },
		"one of pg_promote, trigger, command":       func(c *Config) { c.Promote = "yes" },
		"one of stop, read-only":                    func(c *Config) { c.Fence = "shoot" },
		"one of print, run":                         func(c *Config) { c.Rejoin = "auto" },
		"trigger is missing":                        func(c *Config) { c.Promote = PromoteTrigger },
		"promote_command is missing":                func(c *Config) { c.Promote = PromoteCommand },
		"it has to be a program and its arguments":  func(c *Config) { c.Stop = []string{"/does/not/exist"} },
		"has no pg_controldata":                     func(c *Config) { c.BinDir = "/" },
		"source is missing: with rejoin: run":       func(c *Config) { c.Rejoin = RejoinRun },
		"name it by passfile=":                      func(c *Config) { c.Source = "host=x user=y password=z" },
		"the time-out of stop is 1ns":               func(c *Config) { c.StopTimeout = 1 },
		"Config.Disk is nil":                        func(c *Config) { c.Disk = nil },
	} {
		c := good
		spoil(&c)
		if _, err := NewService(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// All at once.
	if err := (Config{BinDir: bin, Fence: "x", Promote: "y"}).Validate(); strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("not all errors: %v", err)
	}
	if os.Geteuid() == 0 {
		c := good
		c.OSUser = "root"
		if _, err := NewService(c); err == nil || !strings.Contains(err.Error(), "does not run as root") {
			t.Errorf("as root: %v", err)
		}
		c.OSUser = "nobody-at-all"
		if _, err := NewService(c); err == nil || !strings.Contains(err.Error(), "os_user") {
			t.Errorf("as nobody: %v", err)
		}
	}
}

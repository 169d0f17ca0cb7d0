package settings

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// checkGossip looks whether the host can join.
func (s *Settings) checkGossip(ctx context.Context) []Finding {
	const subject = "gossip"
	var all []Finding
	addrs, err := net.InterfaceAddrs()
	for _, a := range []struct {
		key  string
		addr netip.Addr
	}{{"gossip.bind", s.Gossip.Bind.Addr()}, {"listen", s.Listen.Addr()}} {
		if err == nil && !isLocal(a.addr, addrs) {
			all = append(all, finding(LevelError, subject, "%s: %s is no address of this host", a.key, a.addr))
		}
	}
	if key := s.Gossip.Key; key != "" {
		all = append(all, judgeKey(key)...)
	}
	var mu sync.Mutex
	var lookups sync.WaitGroup
	unknown := make([]error, len(s.Gossip.Join))
	for i, seed := range s.Gossip.Join {
		lookups.Go(func() {
			host := seed
			if h, _, err := net.SplitHostPort(seed); err == nil {
				host = h
			}
			_, err := net.DefaultResolver.LookupHost(ctx, host)
			mu.Lock()
			defer mu.Unlock()
			unknown[i] = err
		})
	}
	lookups.Wait()
	for i, err := range unknown {
		if err != nil {
			all = append(all, finding(LevelWarning, subject, "join: %s has no address now: %s; best put the DNS servers into /etc/hosts, for members look them up to reach DNS", s.Gossip.Join[i], err))
		}
	}
	if len(all) == 0 {
		all = append(all, finding(LevelOK, subject, "%s, %d DNS servers", s.Gossip.Bind, len(s.Nodes)))
	}
	return all
}

func isLocal(a netip.Addr, addrs []net.Addr) bool {
	if a.IsUnspecified() || a.IsLoopback() {
		return true
	}
	for _, one := range addrs {
		if p, err := netip.ParsePrefix(one.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}

// judgeKey looks at the file with the gossip keys.
func judgeKey(path string) []Finding {
	const subject = "gossip"
	fi, err := os.Stat(path)
	if err != nil {
		return []Finding{finding(LevelError, subject, "key: %s: copy the DNS servers' key file here", err)}
	}
	if mode := fi.Mode().Perm(); mode&0o077 != 0 {
		return []Finding{finding(LevelError, subject, "key: the mode of %s is %04o, and who reads it can join: chmod 600 %[1]s", path, mode)}
	}
	if _, err := gossip.OpenKeyRing(path); err != nil {
		return []Finding{finding(LevelError, subject, "key: %s", err)}
	}
	return nil
}

// checkDirectories looks at what the member writes and reads.
func (s *Settings) checkDirectories(context.Context) []Finding {
	var all []Finding
	for _, d := range []struct{ key, path string }{{"state", s.State}, {"socket", filepath.Dir(s.Socket)}} {
		all = append(all, judgeWritable(d.key, d.path))
	}
	return all
}

// judgeWritable is about a directory that the member makes if it has to.
func judgeWritable(key, path string) Finding {
	const subject = "state"
	fi, err := os.Stat(path)
	switch {
	case err == nil && !fi.IsDir():
		return finding(LevelError, subject, "%s: %s is no directory", key, path)
	case err == nil:
		if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
			return finding(LevelError, subject, "%s: %s cannot be written: %s", key, path, err)
		}
		if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&os.ModeSticky == 0 {
			return finding(LevelError, subject, "%s: every user can change %s: chmod go-w %[2]s", key, path)
		}
		return finding(LevelOK, subject, "%s: %s", key, path)
	case !os.IsNotExist(err):
		return finding(LevelError, subject, "%s: %s", key, err)
	}
	parent := path
	for os.IsNotExist(err) && parent != "/" {
		parent = filepath.Dir(parent)
		_, err = os.Stat(parent)
	}
	if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
		return finding(LevelError, subject, "%s: %s is not there, and cannot be made in %s: %s", key, path, parent, err)
	}
	return finding(LevelOK, subject, "%s: %s is not there yet, and will be made", key, path)
}

// commands are all that the settings have, by their keys.
func (s *Settings) commands() (keys []string, argv map[string][]string) {
	argv = make(map[string][]string)
	add := func(key string, c []string) {
		if len(c) > 0 {
			keys = append(keys, key)
			argv[key] = c
		}
	}
	r := &s.Roles
	if ca := r.CA; ca != nil && ca.Mode == Service {
		add("puppetserver.restart", s.Puppetserver.Restart)
	}
	if p := r.PostgreSQL; p != nil {
		add("roles.postgresql.promote_command", p.PromoteCommand)
		add("roles.postgresql.start", p.Start)
		add("roles.postgresql.stop", p.Stop)
		// pg_ctl and pg_controldata are looked for by whoever opens the database.
		for _, name := range []string{"pg_rewind", "pg_basebackup"} {
			if p.BinDir != "" {
				add("roles.postgresql.bindir: "+name, []string{filepath.Join(p.BinDir, name)})
			}
		}
	}
	if db := r.PuppetDB; db != nil && db.Mode == Service {
		add("roles.puppetdb.start", db.Start)
		add("roles.puppetdb.stop", db.Stop)
	}
	for _, h := range r.Hooks {
		add("roles.hooks: "+h.Name+".open", h.Open)
		add("roles.hooks: "+h.Name+".close", h.Close)
		add("roles.hooks: "+h.Name+".standby", h.Standby)
		add("roles.hooks: "+h.Name+".check", h.Check)
	}
	for i, c := range s.Reload {
		add(fmt.Sprintf("reload[%d]", i), c)
	}
	return keys, argv
}

// checkCommands looks whether the programs are there.
func (s *Settings) checkCommands(context.Context) []Finding {
	const subject = "commands"
	var all []Finding
	keys, argv := s.commands()
	for _, key := range keys {
		if _, err := exec.LookPath(argv[key][0]); err != nil {
			all = append(all, finding(LevelError, subject, "%s: `%s`: %s: it would fail when it is needed most", key, strings.Join(argv[key], " "), err))
		}
	}
	if len(all) == 0 && len(keys) > 0 {
		all = append(all, finding(LevelOK, subject, "%d programs are there", len(keys)))
	}
	return all
}

func judgeClock(adrift bool, err error) Finding {
	const subject = "clock"
	switch {
	case err != nil:
		return finding(LevelWarning, subject, "whether it is kept right is not known: %s", err)
	case adrift:
		return finding(LevelWarning, subject, "nothing keeps it right: certificates, CRLs and ages go by it; run chrony or systemd-timesyncd")
	}
	return finding(LevelOK, subject, "it is kept right")
}

package settings

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"strings"
	"time"
)

// Host is what defaults depend on.
type Host struct {
	// Name returns the host's full name. It is asked only if nothing else says it.
	Name func() (string, error)
	// Files are the host's, from the root.
	Files fs.FS
}

// ThisHost is the one that the process runs on.
func ThisHost() Host { return Host{Name: fullName, Files: os.DirFS("/")} }

// patience is how long the resolver is waited for.
const patience = 3 * time.Second

// fullName is what `hostname --fqdn` says.
func fullName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("this host's name: %w", err)
	}
	if strings.Contains(name, ".") {
		return name, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return "", fmt.Errorf("the domain of this host, %s: %w", name, err)
	}
	for _, a := range addrs {
		names, _ := net.DefaultResolver.LookupAddr(ctx, a)
		for _, full := range names {
			if strings.HasPrefix(strings.ToLower(full), strings.ToLower(name)+".") {
				return full, nil
			}
		}
	}
	return "", fmt.Errorf("the domain of this host, %s, cannot be found", name)
}

// certname is the host's: as its puppet.conf says, else its full name, as Puppet has it.
func (h Host) certname(l Layout) (string, error) {
	if p, ok := layouts[l]; ok {
		name, err := configuredCertname(h.Files, path.Join(p.config, "puppet.conf"))
		if name != "" || err != nil {
			return name, err
		}
	}
	if h.Name == nil {
		return "", errors.New("this host's name is not known")
	}
	name, err := h.Name()
	if err != nil {
		return "", err
	}
	if name, err = hostName(name); err == nil && !strings.Contains(name, ".") {
		err = fmt.Errorf("this host's name, %s, has no domain", name)
	}
	return name, err
}

// configuredCertname looks for certname in puppet.conf: a server's section goes before
// [main] (puppet's own order). It is "" if there is none.
func configuredCertname(files fs.FS, name string) (string, error) {
	f, err := files.Open(rooted(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	found := make(map[string]string)
	section := "main"
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if inner, ok := strings.CutPrefix(text, "["); ok {
			section, _, _ = strings.Cut(inner, "]")
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		if ok && strings.TrimSpace(key) == "certname" {
			value, _, _ = strings.Cut(value, "#")
			found[strings.TrimSpace(section)] = strings.TrimSpace(value)
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	for _, s := range []string{"server", "master", "main"} {
		if v := found[s]; v != "" {
			n, err := hostName(v)
			if err != nil {
				return "", fmt.Errorf("certname in %s: %w", name, err)
			}
			return n, nil
		}
	}
	return "", nil
}

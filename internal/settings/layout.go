package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Layout is one of the usual places of Puppet's files.
type Layout string

// The layouts.
const (
	Debian   Layout = "debian"   // Debian's own packages
	Upstream Layout = "upstream" // packages of Puppet and OpenVox
)

// places are a layout's. The table is in the man page too.
type places struct {
	config       string // directory of puppet.conf
	ssldir       string
	cadir        string
	caConfig     string
	puppetserver string // directory of puppetserver's configuration
	environments string
	puppetdb     string // directory of PuppetDB's configuration
}

var layouts = map[Layout]places{
	Debian: {
		config:       "/etc/puppet",
		ssldir:       "/var/lib/puppet/ssl",
		cadir:        "/etc/puppet/puppetserver/ca",
		caConfig:     "/etc/puppet/puppetserver/services.d/ca.cfg",
		puppetserver: "/etc/puppet/puppetserver/conf.d",
		environments: "/etc/puppet/code/environments",
		puppetdb:     "/etc/puppetdb/conf.d",
	},
	Upstream: {
		config:       "/etc/puppetlabs/puppet",
		ssldir:       "/etc/puppetlabs/puppet/ssl",
		cadir:        "/etc/puppetlabs/puppetserver/ca",
		caConfig:     "/etc/puppetlabs/puppetserver/services.d/ca.cfg",
		puppetserver: "/etc/puppetlabs/puppetserver/conf.d",
		environments: "/etc/puppetlabs/code/environments",
		puppetdb:     "/etc/puppetlabs/puppetdb/conf.d",
	},
}

// findLayout returns the one whose puppet.conf is there, or at least its directory.
func findLayout(files fs.FS) (Layout, error) {
	for _, name := range []string{"puppet.conf", "."} {
		debian := exists(files, path.Join(layouts[Debian].config, name))
		upstream := exists(files, path.Join(layouts[Upstream].config, name))
		switch {
		case debian && upstream:
			return "", fmt.Errorf("this host has both %s and %s: write `layout: debian` or `layout: upstream`",
				path.Join(layouts[Debian].config, name), path.Join(layouts[Upstream].config, name))
		case debian:
			return Debian, nil
		case upstream:
			return Upstream, nil
		}
	}
	return "", errors.New("this host has neither /etc/puppet nor /etc/puppetlabs/puppet: write `layout: debian` or `layout: upstream`")
}

// puppetDefaults are the files that the daemon's unit reads JAVA_ARGS from: Debian's
// family, and Red Hat's.
var puppetDefaults = []string{"/etc/default/puppetserver", "/etc/sysconfig/puppetserver"}

func firstThere(files fs.FS, paths []string) string {
	for _, p := range paths {
		if exists(files, p) {
			return p
		}
	}
	return paths[0]
}

// exists says whether an absolute path is there.
func exists(files fs.FS, name string) bool {
	_, err := fs.Stat(files, rooted(name))
	return err == nil
}

// rooted is an absolute path as fs.FS wants it.
func rooted(name string) string {
	if name = strings.TrimPrefix(path.Clean(name), "/"); name == "" {
		return "."
	}
	return name
}

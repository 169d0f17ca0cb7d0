package node

import "strings"

// host is a host name for people.
func host(s string) string { return strings.TrimSuffix(s, ".") }

// keyView is a register's key as people write it.
func keyView(key string) string { return strings.TrimSuffix(key, ".") }

func fqdn(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) + "." }

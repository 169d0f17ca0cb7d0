//go:build !race

package gossip_test

const large = 50

// Package egresstest has a DNS server whose answers change, as those of an attacker do.
package egresstest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
)

// Names is a DNS server that knows one name: every name. It answers what the test says at the moment.
type Names struct{ answer atomic.Value } // []netip.Addr

// Set says which addresses are answered from now on.
func (n *Names) Set(ips ...string) {
	var all []netip.Addr
	for _, ip := range ips {
		all = append(all, netip.MustParseAddr(ip))
	}
	n.answer.Store(all)
}

// Resolver asks n.
func (n *Names) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go n.serve(server)
		return client, nil
	}}
}

// serve speaks DNS over a stream (RFC 1035 section 4.2.2).
func (n *Names) serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // both ends are ours
	for {
		var length uint16
		if binary.Read(c, binary.BigEndian, &length) != nil {
			return
		}
		q := make([]byte, length)
		if _, err := io.ReadFull(c, q); err != nil {
			return
		}
		end := 12
		for q[end] != 0 {
			end += int(q[end]) + 1
		}
		kind := binary.BigEndian.Uint16(q[end+1:])
		reply := append([]byte{q[0], q[1], 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end+5]...)
		ips, _ := n.answer.Load().([]netip.Addr)
		for _, ip := range ips {
			if data := ip.AsSlice(); kind == 1 && ip.Is4() || kind == 28 && ip.Is6() {
				reply[7]++
				reply = append(reply, 0xc0, 12, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(data)))
				reply = append(reply, data...)
			}
		}
		if binary.Write(c, binary.BigEndian, uint16(len(reply))) != nil {
			return
		}
		if _, err := c.Write(reply); err != nil {
			return
		}
	}
}

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// direction is ingress or egress as seen from the pod that a policy is about.
type direction struct {
	// As in policyTypes.
	name string
	// What chains of this direction begin with.
	chain string
	// The end of a packet where the pod's address stands, and the other end.
	own, other string
}

var (
	ingress = direction{"Ingress", "to", "daddr", "saddr"}
	egress  = direction{"Egress", "from", "saddr", "daddr"}
)

// table gives the rules for the pods of one node as nft reads them.
//
// A pod that a policy selects for a direction gets a chain for it, which accepts what any of them allows and drops the
// rest. Packets of connections that were allowed once pass, as answers do. What the node itself sends to its pods, such as
// probes, does not come through the forward hook, and so is never denied.
func (c *cluster) table(podRange netip.Prefix) (string, error) {
	var chains strings.Builder
	jumps := map[direction][]string{}
	for i := range c.pods.Items {
		pod := &c.pods.Items[i]
		address, ok := pod.address()
		if !ok || !podRange.Contains(address) {
			continue
		}
		for _, direction := range []direction{ingress, egress} {
			rules, isolated, err := c.rules(pod, direction)
			if err != nil {
				return "", fmt.Errorf("pod %s/%s: %w", pod.Meta.Namespace, pod.Meta.Name, err)
			}
			if !isolated {
				continue
			}
			name := direction.chain + "-" + strings.ReplaceAll(address.String(), ".", "-")
			fmt.Fprintf(&chains, "  chain %s {\n", name)
			for _, rule := range rules {
				fmt.Fprintf(&chains, "    %s\n", rule)
			}
			chains.WriteString("    counter drop\n  }\n")
			jumps[direction] = append(jumps[direction], fmt.Sprintf("%s : jump %s", address, name))
		}
	}
	var text strings.Builder
	// Deleting what may not exist: it is made first.
	text.WriteString("table ip netpol {}\ndelete table ip netpol\ntable ip netpol {\n")
	text.WriteString(chains.String())
	text.WriteString("  chain forward {\n    type filter hook forward priority 10; policy accept;\n")
	text.WriteString("    ct state established,related accept\n")
	// A chain that allows a packet ends its way through this hook, so a pod that may send is asked first in a chain of its
	// own kind: `return` brings the packet back for the receiver's rules.
	for _, direction := range []direction{egress, ingress} {
		if len(jumps[direction]) > 0 {
			slices.Sort(jumps[direction])
			fmt.Fprintf(&text, "    ip %s vmap { %s }\n", direction.own, strings.Join(jumps[direction], ", "))
		}
	}
	text.WriteString("  }\n}\n")
	return text.String(), nil
}

// rules gives what lets packets of a pod pass in one direction, and whether anything keeps them.
func (c *cluster) rules(pod *pod, direction direction) (rules []string, isolated bool, err error) {
	for i := range c.policies.Items {
		policy := &c.policies.Items[i]
		if policy.Meta.Namespace != pod.Meta.Namespace || !policy.isFor(direction) {
			continue
		}
		selected, err := policy.Spec.PodSelector.matches(pod.Meta.Labels)
		if err != nil {
			return nil, false, err
		}
		if !selected {
			continue
		}
		isolated = true
		allowed := policy.Spec.Ingress
		if direction == egress {
			allowed = policy.Spec.Egress
		}
		for _, rule := range allowed {
			peers := rule.From
			if direction == egress {
				peers = rule.To
			}
			more, err := c.allow(pod, policy.Meta.Namespace, peers, rule.Ports, direction)
			if err != nil {
				return nil, false, fmt.Errorf("NetworkPolicy %s: %w", policy.Meta.Name, err)
			}
			rules = append(rules, more...)
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules), isolated, nil
}

// isFor: without policyTypes a policy is for ingress, and for egress if it has rules for it.
func (p *policy) isFor(direction direction) bool {
	if len(p.Spec.Types) > 0 {
		return slices.Contains(p.Spec.Types, direction.name)
	}
	return direction == ingress || len(p.Spec.Egress) > 0
}

// allow gives the nft rules of one rule of a policy. No peers are all of them, no ports too.
func (c *cluster) allow(own *pod, within string, peers []peer, ports []port, direction direction) ([]string, error) {
	ends, err := c.ends(within, peers, direction)
	if err != nil {
		return nil, err
	}
	var rules []string
	for _, end := range ends {
		// A name is that of a port of the pod that is connected to.
		server := own
		if direction == egress {
			server = end.pod
		}
		if len(ports) == 0 {
			rules = append(rules, strings.TrimSpace(end.match+" return"))
		}
		for _, port := range ports {
			match, known, err := port.match(server)
			if err != nil {
				return nil, err
			}
			if known {
				rules = append(rules, strings.TrimSpace(end.match+" "+match+" return"))
			}
		}
	}
	return rules, nil
}

// end is who may be at the other end of a connection.
type end struct {
	match string
	// If it is a pod.
	pod *pod
}

func (c *cluster) ends(within string, peers []peer, direction direction) ([]end, error) {
	if len(peers) == 0 {
		return []end{{}}, nil
	}
	var ends []end
	for _, peer := range peers {
		if peer.Block != nil {
			match := fmt.Sprintf("ip %s %s", direction.other, peer.Block.CIDR)
			if len(peer.Block.Except) > 0 {
				match += fmt.Sprintf(" ip %s != { %s }", direction.other, strings.Join(peer.Block.Except, ", "))
			}
			ends = append(ends, end{match: match})
			continue
		}
		for i := range c.pods.Items {
			pod := &c.pods.Items[i]
			address, ok := pod.address()
			if !ok {
				continue
			}
			is, err := c.isPeer(pod, within, &peer)
			if err != nil {
				return nil, err
			}
			if is {
				ends = append(ends, end{fmt.Sprintf("ip %s %s", direction.other, address), pod})
			}
		}
	}
	return ends, nil
}

// isPeer: without a selector of namespaces only pods of the policy's own one are meant.
func (c *cluster) isPeer(pod *pod, within string, peer *peer) (bool, error) {
	if peer.NamespaceSelector == nil {
		if pod.Meta.Namespace != within {
			return false, nil
		}
	} else {
		selected, err := peer.NamespaceSelector.matches(c.labelsOf(pod.Meta.Namespace))
		if err != nil || !selected {
			return false, err
		}
	}
	if peer.PodSelector == nil {
		return true, nil
	}
	return peer.PodSelector.matches(pod.Meta.Labels)
}

func (c *cluster) labelsOf(name string) map[string]string {
	for i := range c.namespaces.Items {
		if c.namespaces.Items[i].Meta.Name == name {
			return c.namespaces.Items[i].Meta.Labels
		}
	}
	return nil
}

// match gives the condition on protocol and port; nothing where the pod has no port of that name.
func (p *port) match(server *pod) (match string, known bool, err error) {
	protocol := p.Protocol
	if protocol == "" {
		protocol = "TCP"
	}
	if protocol != "TCP" && protocol != "UDP" {
		return "", false, fmt.Errorf("protocol %s is not among what this program knows", protocol)
	}
	number := p.Port.number
	if p.Port.name != "" {
		if server == nil {
			return "", false, nil
		}
		if number, known = server.named(p.Port.name, protocol); !known {
			return "", false, nil
		}
	}
	switch {
	case number == 0:
		return "meta l4proto " + strings.ToLower(protocol), true, nil
	case p.End > 0:
		return fmt.Sprintf("%s dport %d-%d", strings.ToLower(protocol), number, p.End), true, nil
	default:
		return fmt.Sprintf("%s dport %d", strings.ToLower(protocol), number), true, nil
	}
}

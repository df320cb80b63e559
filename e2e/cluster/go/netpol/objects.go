package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// The parts of Kubernetes objects that rules are made of.

type list[T any] struct {
	Items []T `json:"items"`
}

type cluster struct {
	policies   list[policy]
	namespaces list[namespace]
	pods       list[pod]
}

type meta struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
}

type namespace struct {
	Meta meta `json:"metadata"`
}

type pod struct {
	Meta meta `json:"metadata"`
	Spec struct {
		HostNetwork    bool        `json:"hostNetwork"`
		Containers     []container `json:"containers"`
		InitContainers []container `json:"initContainers"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
		IP    string `json:"podIP"`
	} `json:"status"`
}

type container struct {
	Ports []struct {
		Name     string `json:"name"`
		Port     int    `json:"containerPort"`
		Protocol string `json:"protocol"`
	} `json:"ports"`
}

// address is that of a pod with a network of its own that may still send something.
func (p *pod) address() (netip.Addr, bool) {
	if p.Spec.HostNetwork || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(p.Status.IP)
	return address, err == nil
}

// named is the number of a port that a container of the pod has by name.
func (p *pod) named(name, protocol string) (int, bool) {
	for _, container := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for _, port := range container.Ports {
			if port.Name == name && (port.Protocol == protocol || port.Protocol == "" && protocol == "TCP") {
				return port.Port, true
			}
		}
	}
	return 0, false
}

type policy struct {
	Meta meta `json:"metadata"`
	Spec struct {
		PodSelector selector `json:"podSelector"`
		Types       []string `json:"policyTypes"`
		Ingress     []rule   `json:"ingress"`
		Egress      []rule   `json:"egress"`
	} `json:"spec"`
}

type rule struct {
	From  []peer `json:"from"`
	To    []peer `json:"to"`
	Ports []port `json:"ports"`
}

type peer struct {
	PodSelector       *selector `json:"podSelector"`
	NamespaceSelector *selector `json:"namespaceSelector"`
	Block             *struct {
		CIDR   string   `json:"cidr"`
		Except []string `json:"except"`
	} `json:"ipBlock"`
}

type port struct {
	Protocol string     `json:"protocol"`
	Port     portNumber `json:"port"`
	End      int        `json:"endPort"`
}

// portNumber is a number or a name; neither where it is absent.
type portNumber struct {
	number int
	name   string
}

func (p *portNumber) UnmarshalJSON(text []byte) error {
	if number, err := strconv.Atoi(string(text)); err == nil {
		p.number = number
		return nil
	}
	return json.Unmarshal(text, &p.name)
}

type selector struct {
	Labels      map[string]string `json:"matchLabels"`
	Expressions []struct {
		Key      string   `json:"key"`
		Operator string   `json:"operator"`
		Values   []string `json:"values"`
	} `json:"matchExpressions"`
}

// matches says whether labels are selected; an empty selector selects everything.
func (s *selector) matches(labels map[string]string) (bool, error) {
	for key, value := range s.Labels {
		if has, ok := labels[key]; !ok || has != value {
			return false, nil
		}
	}
	for _, expression := range s.Expressions {
		value, has := labels[expression.Key]
		listed := has && slices.Contains(expression.Values, value)
		var fits bool
		switch expression.Operator {
		case "In":
			fits = listed
		case "NotIn":
			fits = !listed
		case "Exists":
			fits = has
		case "DoesNotExist":
			fits = !has
		default:
			return false, fmt.Errorf("unknown operator %q of a selector", expression.Operator)
		}
		if !fits {
			return false, nil
		}
	}
	return true, nil
}

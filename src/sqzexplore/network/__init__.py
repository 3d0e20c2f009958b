"""What a network is: metaparameters, rules, cost in closed form, the `nn.Module`."""

"""Networks with 3×3 convolutions in a row, and operations that interrupt the row."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(inputs=4, outputs=4, kernel=3, padding=1, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, **options)


class Net(nn.Module):
    """Some layers, and a function `way` that connects them."""

    def __init__(self, way, **layers):
        super().__init__()
        self.way = way
        self.c = nn.ModuleList(conv() for _ in range(6))
        self.head, self.tail = conv(3), conv(outputs=3)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.tail(self.way(self, self.head(x)))


def blocks(net, x):
    first = x
    for i in (0, 2):
        x = x + 0.3 * net.c[i + 1](F.leaky_relu(net.c[i](x), 0.5))
    return net.c[4](x) + first


def used_everywhere(net, x):
    one = net.c[0](x)
    two = net.c[1](one) + one
    three = net.c[2](two) + net.c[3](two)
    return three * torch.sigmoid(one) + two.mean((2, 3), keepdim=True) + x


def shared_weights(net, x):
    for _ in range(3):
        x = net.c[1](F.leaky_relu(net.c[0](x), 0.5)) + x
    return x


def bias_of_another(net, x):
    y = F.conv2d(x, net.c[0].weight, net.c[1].bias, padding=1)
    return F.conv2d(y, net.c[1].weight, net.c[1].bias, padding=1)


def dense(net, x):
    y = torch.cat((x, net.c[0](x)), 1)
    y = torch.cat((y, net.grow(y)), 1)
    return net.shrink(y)


def joined_to_images(net, x):
    y = torch.cat((net.image, net.c[0](x)), 1)
    return net.c[1](y[:, 3:] + 0.1) + net.seven(y)


def joined_and_added(net, x):
    y = torch.cat((x, net.c[0](x)), 1)
    return net.shrink8(net.eight(y) + y)


def joined_apart(net, x):
    y = torch.cat((x, net.c[0](x)), 1)
    one, other = (torch.cat((y, net.grow(y) * k), 1) for k in (1.0, -2.0))
    return net.shrink(one) + net.shrink(other)


def joined_before_all(net, x):
    y = torch.cat((torch.tanh(x), torch.sigmoid(x)), 1)
    return net.c[1](net.shrink8(y))


def other_layers_between(net, x):
    x = net.c[0](F.gelu(net.c[1](net.c[2](x)))) + x
    return net.c[5](net.c[4](net.prelu(net.c[3](x))))


def in_place(net, x):
    x = F.relu_(net.c[1](net.c[0](x)))
    x = net.c[3](net.c[2](x) + 0.1)
    x.mul_(0.5)
    x[:, 1:3].add_(0.25)
    y = net.c[5](net.c[4](x))
    y += x
    return y


def written_after_use(net, x):
    first = net.c[0](x)
    one = net.c[1](first)
    two = net.c[2](x) + 2 * one
    one.mul_(0.5)
    return net.c[3](two) + one + first


def dead_ends(net, x):
    net.c[1](net.c[0](x))
    return net.c[2](x)


def no_gradient(net, x):
    y = net.c[1](net.c[0](x))
    return net.c[2](y.detach()) + net.c[3](y)


def resized(net, x):
    y = F.pixel_shuffle(net.c[0](x), 2)
    y = F.leaky_relu(F.pixel_shuffle(net.many(y.repeat(1, 4, 1, 1)), 2), 0.5)
    return F.avg_pool2d(net.c[1](y), 4)


def two_sizes(net, x):
    y = net.c[1](net.c[0](x))
    small = net.c[3](net.c[2](F.avg_pool2d(y, 2, ceil_mode=True)))
    return y + F.interpolate(small, size=y.shape[2:], mode="nearest")


def transposed_views(net, x):
    y = net.c[0](x).transpose(2, 3)
    y = net.c[1](y)
    return net.c[2](y).transpose(2, 3).flip(1)


def image_itself(net, x):
    return net.c[1](net.c[0](x)) + net.c[3](net.c[2](torch.cat((net.image, x[:, :1]), 1)))


def batches(net, x):
    y = net.c[1](net.c[0](torch.cat((x, 0.5 * x, x.flip(3)))))
    return net.c[3](net.c[2](y)).mean(0, keepdim=True) + y[1:2]


def one_for_all_images(net, x):
    y = net.c[1](net.c[0](2 * net.picture.weight[None, :, : x.shape[2], : x.shape[3]]))
    return net.c[3](net.c[2](x) + y) + y


def parameter_itself(net, x):
    y = net.c[1](net.c[0](net.picture.weight[None]))
    return net.c[3](net.c[2](x)) + y.mean()


def constant(net, x):
    y = net.c[1](net.c[0](torch.ones_like(x)))
    return net.c[3](net.c[2](x)) + y


def joined_parameters(net, x):
    part = torch.sin(net.picture.weight[None, :, : x.shape[2], : x.shape[3]])
    y = torch.cat((part, 2 * part), 1)
    return net.shrink(torch.cat((y, net.grow(y)), 1)) + net.c[1](net.c[0](x))


def same_twice(net, x):
    y = torch.cat((net.c[0](x),) * 2, 1)
    return net.shrink8(y) + net.c[1](net.c[2](x) + net.c[2](x))


class Picture(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 9, 8))


class WithImage(Net):
    def forward(self, x):
        self.__dict__["image"] = x
        y = super().forward(x)
        del self.__dict__["image"]
        return y


NETS = {
    "blocks": lambda: Net(blocks),
    "used everywhere": lambda: Net(used_everywhere),
    "shared weights": lambda: Net(shared_weights),
    "bias of another": lambda: Net(bias_of_another),
    "dense": lambda: Net(dense, grow=conv(8, 5), shrink=conv(13)),
    "joined to images": lambda: WithImage(joined_to_images, seven=conv(7)),
    "joined and added": lambda: Net(joined_and_added, eight=conv(8, 8), shrink8=conv(8)),
    "joined apart": lambda: Net(joined_apart, grow=conv(8, 5), shrink=conv(13)),
    "joined before all": lambda: Net(joined_before_all, shrink8=conv(8)),
    "other layers between": lambda: Net(other_layers_between, prelu=nn.PReLU(4)),
    "in place": lambda: Net(in_place),
    "written after use": lambda: Net(written_after_use),
    "dead ends": lambda: Net(dead_ends),
    "no gradient": lambda: Net(no_gradient),
    "resized": lambda: Net(resized, many=conv(4, 16)),
    "two sizes": lambda: Net(two_sizes),
    "transposed views": lambda: Net(transposed_views),
    "image itself": lambda: WithImage(image_itself),
    "batches": lambda: Net(batches),
    "one for all images": lambda: Net(one_for_all_images, picture=Picture()),
    "parameter itself": lambda: Net(parameter_itself, picture=Picture()),
    "constant": lambda: Net(constant),
    "joined parameters": lambda: Net(
        joined_parameters, picture=Picture(), grow=conv(8, 5), shrink=conv(13)
    ),
    "same twice": lambda: Net(same_twice, shrink8=conv(8)),
}

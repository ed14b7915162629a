"""Small instances of the architectures of spandrel and spandrel-extra-arches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

MAIN = "spandrel.architectures"
EXTRA = "spandrel_extra_arches.architectures"


@dataclass(frozen=True)
class Instance:
    """A small network of one architecture.

    Attributes
    ----------
    place : str
        Folder, module and class within the package, such as "HAT.HAT.HAT".
    arguments : dict
        Keyword arguments of the class.
    size : tuple of int
        Height and width of an input image.
    channels : int
        Of an input image.
    package : str
        Package with the folders of architectures.
    call : callable, optional
        Calls the network with x, where its forward takes or returns more than an image.
    change : callable, optional
        Of (network, module of its class): makes parts small whose sizes the class fixes.
    masked : bool
        The forward takes a mask [N, 1, H, W] of the pixels to fill beside the image.
    loop_trains : bool
        The plain loop calls the network in training mode: in eval mode its forward writes over
        values that autograd needs.
    """

    place: str
    arguments: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (16, 16)
    channels: int = 3
    package: str = MAIN
    call: Callable[[nn.Module, Tensor], Tensor] | None = None
    change: Callable[[Any, ModuleType], None] | None = None
    masked: bool = False
    loop_trains: bool = False

    def network(self) -> nn.Module:
        """Make the network with random weights.

        Returns
        -------
        nn.Module
            From images [N, C, H, W], and masks where it is `masked`, to images.
        """
        folder, file, name = self.place.split(".")
        module = import_module(f"{self.package}.{folder}.__arch.{file}")
        network: nn.Module = getattr(module, name)(**self.arguments)
        if self.change is not None:
            self.change(network, module)
        return network if self.call is None else Called(network, self.call)


class Called(nn.Module):
    """A network whose forward takes and returns one image.

    Parameters
    ----------
    network : nn.Module
        The network.
    call : callable
        Of (network, x).
    """

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, x: Tensor) -> Tensor:
        """Call the network on x [N, C, H, W]."""
        return self.call(self.network, x)


def _first(network: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = network(x)[0]
    return output


def _conditions(network: nn.Module, x: Tensor) -> Tensor:
    """Call a network without its random noise."""
    output: Tensor = network(x, randomize_noise=False)[0]
    return output


def _fixed_noise(network: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = network(x, noise=x.new_ones(len(x), 128))
    return output


def _small_codeformer(network: Any, module: ModuleType) -> None:
    """Take one halving, from 32×32 to 16×16 codes, in place of five from 512×512."""
    network.encoder = module.Encoder(3, 32, 256, [1, 2], 1, 32, [16])
    network.generator = module.Generator(32, [1, 2], 1, 32, [16], 256)
    network.fuse_encoder_block = {"32": 1}  # the first residual block
    network.fuse_generator_block = {"32": 7}  # after the enlargement
    network.fuse_convs_dict["32"] = module.Fuse_sft_block(32, 32)


def _small_lama(network: Any, module: ModuleType) -> None:
    network.model = module.FFCResNetGenerator(4, 3, ngf=4, n_downsampling=2, n_blocks=2)


def _small_mat(network: Any, module: ModuleType) -> None:
    """Take 128×128, the least size of its first stage, in place of 512×512."""
    network.model = module.Generator(
        z_dim=16, c_dim=0, w_dim=16, img_resolution=128, img_channels=3
    )
    network.z = torch.randn(1, 16, dtype=torch.float64)


_WINDOWS: dict[str, Any] = dict(
    img_size=16, embed_dim=12, depths=(2,), num_heads=(2,), mlp_ratio=2.0, upscale=2,
    upsampler="pixelshuffledirect",
)  # fmt: skip
_SMALL = dict(_WINDOWS, window_size=8)
_UNET = dict(nc=[4, 8, 8, 8], nb=1)

INSTANCES: dict[str, Instance] = {
    "ATD": Instance(
        "ATD.atd_arch.ATD",
        dict(_SMALL, embed_dim=12, category_size=16, num_tokens=8, reducted_dim=2),
    ),
    "AuraSR": Instance(
        "AuraSR.aura_sr.UnetUpsampler",
        dict(
            dim=8, image_size=32, input_image_size=8, up_dim_mults=(1, 2, 2), down_dim_mults=(2,),
            full_attn=(False, False, True), attn_depths=(1, 1, 1), self_attn_heads=2,
            self_attn_dim_head=4, mid_attn_depth=1, num_conv_kernels=2,
            style_network=dict(dim_in=128, dim_out=16, depth=2), unconditional=True,
            flash_attn=False, resnet_block_groups=2,
        ),
        size=(8, 8),
        call=_fixed_noise,
    ),
    "Compact": Instance("Compact.SRVGG.SRVGGNetCompact", dict(num_feat=8, num_conv=2, upscale=2)),
    "CRAFT": Instance(
        "CRAFT.CRAFT.CRAFT", dict(embed_dim=12, depths=[2], num_heads=[2], upscale=2)
    ),
    "DAT": Instance(
        "DAT.DAT.DAT",
        dict(
            img_size=16, embed_dim=16, split_size=[4, 8], depth=[2], num_heads=[2],
            expansion_factor=2.0, upscale=2, upsampler="pixelshuffledirect",
        ),
    ),
    "DAT, checkpoints": Instance(
        "DAT.DAT.DAT",
        dict(
            img_size=16, embed_dim=16, split_size=[4, 8], depth=[2], num_heads=[2],
            expansion_factor=2.0, upscale=2, upsampler="pixelshuffledirect", use_chk=True,
        ),
    ),
    "DCTLSA": Instance("DCTLSA.dctlsa.DCTLSA", dict(nf=10, upscale=2)),
    "DITN": Instance(
        "DITN.DITN_Real.DITN_Real", dict(dim=8, ITL_blocks=1, SAL_blocks=1, upscale=2)
    ),
    "DnCNN": Instance("DnCNN.network_dncnn.DnCNN", dict(nc=8, nb=4), channels=1),
    "FDnCNN": Instance(
        "DnCNN.network_dncnn.DnCNN", dict(in_nc=2, nc=8, nb=4, act_mode="R", mode="FDnCNN"),
        channels=2,
    ),
    "DRCT": Instance("DRCT.drct_arch.DRCT", dict(_SMALL, upsampler="pixelshuffle", gc=4)),
    "DRUNet": Instance("DRUNet.network_unet.DRUNet", dict(_UNET, in_nc=4, out_nc=3), channels=4),
    "ESRGAN": Instance(
        "ESRGAN.RRDB.RRDBNet", dict(num_filters=8, num_blocks=1, scale=2, shuffle_factor=None)
    ),
    "FBCNN": Instance("FBCNN.FBCNN.FBCNN", dict(nc=[4, 8, 8, 512], nb=1), call=_first),
    "FDAT": Instance(
        "FDAT.fdat.FDAT",
        dict(scale=2, embed_dim=16, num_groups=1, depth_per_group=1, num_heads=2, mid_dim=8),
    ),
    "FFTformer": Instance(
        "FFTformer.fftformer_arch.FFTformer",
        dict(dim=8, num_blocks=[1, 1, 1], num_refinement_blocks=1),
        size=(32, 32),
    ),
    "GFPGAN": Instance(
        "GFPGAN.gfpganv1_clean_arch.GFPGANv1Clean",
        dict(out_size=32, num_style_feat=16, channel_multiplier=1, num_mlp=2, narrow=0.03125,
             fix_decoder=False),
        size=(32, 32),
        call=_conditions,
    ),
    "GRL": Instance(
        "GRL.grl.GRL",
        dict(
            img_size=16, embed_dim=16, upscale=2, upsampler="pixelshuffledirect", depths=[2],
            num_heads_window=[2], num_heads_stripe=[2], mlp_ratio=2.0,
        ),
    ),
    "HAT": Instance(
        "HAT.HAT.HAT",
        dict(_SMALL, upsampler="pixelshuffle", compress_ratio=3, squeeze_factor=6, num_feat=8),
    ),
    "HVICIDNet": Instance(
        "HVICIDNet.cidnet.CIDNet", dict(channels=[8, 8, 16, 16], heads=[1, 2, 2, 2])
    ),
    "IPT": Instance(
        "IPT.ipt.IPT",
        dict(patch_size=12, n_feats=8, num_heads=2, num_layers=1, scale=[2], patch_dim=3),
        size=(12, 12),
    ),
    "KBNet-l": Instance(
        "KBNet.kbnet_l.KBNet_l",
        dict(dim=24, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 2, 4, 8]),
    ),
    "KBNet-s": Instance(
        "KBNet.kbnet_s.KBNet_s",
        dict(width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
    ),
    "LaMa": Instance("LaMa.LaMa.LaMa", dict(in_nc=4), change=_small_lama, masked=True),
    "MixDehazeNet": Instance(
        "MixDehazeNet.MixDehazeNet.MixDehazeNet",
        dict(embed_dims=[8, 16, 16, 16, 8], depths=[1, 1, 1, 1, 1]),
        size=(40, 40),
    ),
    "MMRealSR": Instance(
        "MMRealSR.mmrealsr_arch.MMRRDBNet_test",
        dict(
            num_in_ch=3, num_out_ch=3, scale=4, num_feat=8, num_block=1, num_grow_ch=4,
            num_feats=[8, 8, 8, 8], num_blocks=[1, 1, 1, 1],
        ),
        call=_first,
    ),
    "MoESR": Instance(
        "MoESR.MoESR.MoESR", dict(scale=2, dim=16, n_blocks=1, n_block=1, upsample_dim=8)
    ),
    "MoSR": Instance("MoSR.mosr_arch.MoSR", dict(upscale=2, n_block=2, dim=16)),
    "NAFNet": Instance(
        "NAFNet.NAFNet_arch.NAFNet",
        dict(width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
    ),
    "OmniSR": Instance(
        "OmniSR.OmniSR.OmniSR", dict(num_feat=16, block_num=1, res_num=1, up_scale=2)
    ),
    "PLKSR": Instance(
        "PLKSR.PLKSR.PLKSR",
        dict(dim=16, n_blocks=2, upscaling_factor=2, kernel_size=9),
        loop_trains=True,
    ),
    "RealPLKSR": Instance(
        "PLKSR.RealPLKSR.RealPLKSR",
        dict(dim=16, n_blocks=2, upscaling_factor=2, kernel_size=9),
        loop_trains=True,
    ),
    "RCAN": Instance(
        "RCAN.rcan_arch.RCAN",
        dict(scale=2, n_resgroups=1, n_resblocks=2, n_feats=16, reduction=4),
    ),
    "RealCUGAN ×2": Instance("RealCUGAN.upcunet_v3.UpCunet2x", size=(20, 20)),
    "RealCUGAN ×3": Instance("RealCUGAN.upcunet_v3.UpCunet3x", size=(20, 20)),
    "RealCUGAN ×4": Instance("RealCUGAN.upcunet_v3.UpCunet4x", size=(20, 20)),
    "RealCUGAN ×2 fast": Instance("RealCUGAN.upcunet_v3.UpCunet2x_fast", size=(40, 40)),
    "RestoreFormer": Instance(
        "RestoreFormer.restoreformer_arch.RestoreFormer",
        dict(
            n_embed=16, embed_dim=32, ch=32, ch_mult=(1, 1), num_res_blocks=1, resolution=16,
            attn_resolutions=(8,), z_channels=32, head_size=4,
        ),
        call=_first,
    ),
    "RetinexFormer": Instance(
        "RetinexFormer.retinexformer_arch.RetinexFormer", dict(n_feat=8, stage=1)
    ),
    "RGT": Instance(
        "RGT.rgt.RGT",
        dict(img_size=16, embed_dim=32, depth=[2], num_heads=[2], mlp_ratio=2.0, upscale=2),
    ),
    "RGT, padded": Instance(
        "RGT.rgt.RGT",
        dict(img_size=16, embed_dim=32, depth=[2], num_heads=[2], mlp_ratio=2.0, upscale=2),
        size=(20, 17),
    ),
    "SAFMN": Instance("SAFMN.safmn.SAFMN", dict(dim=8, n_blocks=2, upscaling_factor=2)),
    "SAFMN BCIE": Instance(
        "SAFMNBCIE.safmn_bcie.SAFMN_BCIE", dict(dim=8, n_blocks=1, num_layers=1)
    ),
    "SCUNet": Instance(
        "SCUNet.SCUNet.SCUNet", dict(config=[1] * 7, dim=64, input_resolution=64), size=(64, 64)
    ),
    "SeemoRe": Instance(
        "SeemoRe.seemore_arch.SeemoRe",
        dict(scale=2, num_experts=2, num_layers=1, embedding_dim=8),
    ),
    "SPAN": Instance(
        "SPAN.span.SPAN", dict(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2)
    ),
    "SwiftSRGAN": Instance(
        "SwiftSRGAN.SwiftSRGAN.Generator",
        dict(num_channels=8, num_blocks=2, upscale_factor=2),
    ),
    "Swin2SR": Instance("Swin2SR.Swin2SR.Swin2SR", _SMALL),
    "Swin2SR, padded": Instance("Swin2SR.Swin2SR.Swin2SR", _SMALL, size=(20, 17)),
    "SwinIR": Instance("SwinIR.SwinIR.SwinIR", _SMALL),
    "SwinIR, checkpoints": Instance("SwinIR.SwinIR.SwinIR", dict(_SMALL, use_checkpoint=True)),
    "SwinIR, padded": Instance("SwinIR.SwinIR.SwinIR", _SMALL, size=(20, 17)),
    "Uformer": Instance(
        "Uformer.Uformer.Uformer",
        dict(
            img_size=128, embed_dim=8, depths=[1] * 9, num_heads=[1, 1, 2, 2, 2, 2, 2, 1, 1],
            mlp_ratio=2.0,
        ),
        size=(128, 128),
    ),
    "AdaCode": Instance(
        "AdaCode.adacode_contrast_arch.AdaCodeSRNet_Contrast",
        dict(codebook_params=[[32, 16, 16]], gt_resolution=256, LQ_stage=False),
        size=(64, 64),
        package=EXTRA,
    ),
    "CodeFormer": Instance(
        "CodeFormer.codeformer.CodeFormer",
        dict(dim_embd=32, n_head=2, n_layers=1, codebook_size=16, connect_list=["32"]),
        size=(32, 32),
        package=EXTRA,
        call=_first,
        change=_small_codeformer,
    ),
    "DDColor": Instance(
        "DDColor.ddcolor.DDColor",
        dict(encoder_name="convnext-t", input_size=(64, 64), num_queries=4, dec_layers=3),
        size=(64, 64),
        package=EXTRA,
    ),
    "FeMaSR": Instance(
        "FeMaSR.femasr.FeMaSRNet",
        dict(codebook_params=[[32, 16, 16]], gt_resolution=256, LQ_stage=False),
        size=(32, 32),
        package=EXTRA,
    ),
    "M3SNet": Instance(
        "M3SNet.M3SNet.M3SNet",
        dict(width=8, middle_blk_num=1, enc_blk_nums=[1, 1, 1, 1], dec_blk_nums=[1, 1, 1, 1]),
        package=EXTRA,
    ),
    "MAT": Instance(
        "MAT.MAT.MAT", size=(128, 128), package=EXTRA, change=_small_mat, masked=True
    ),
    "MIRNet2": Instance(
        "MIRNet2.mirnet_v2_arch.MIRNet_v2", dict(n_feat=16, n_MRB=1), package=EXTRA
    ),
    "MPRNet": Instance(
        "MPRNet.MPRNet.MPRNet",
        dict(n_feat=8, scale_unetfeats=4, scale_orsnetfeats=4, num_cab=1),
        package=EXTRA,
        call=_first,
    ),
    "Restormer": Instance(
        "Restormer.restormer_arch.Restormer",
        dict(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 2, 2, 2]),
        package=EXTRA,
    ),
    "SRFormer": Instance("SRFormer.SRFormer.SRFormer", _SMALL, package=EXTRA),
}  # fmt: skip
